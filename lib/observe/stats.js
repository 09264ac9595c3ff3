"use strict"

/**
 * Upper bounds of the latency classes of a store that delegates, since the binding may be missing. A test
 * compares them with the binding's.
 */
const BOUNDS_MS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000]

/**
 * Counters in JavaScript: all requests of a delegating store; for other stores, the requests that never reached
 * Rust.
 */
class Counts {
  #protocol
  #boundsMs
  /** By command, then by outcome. */
  #commands = {}
  #latency
  #sumMs = 0

  /** A store that delegates passes no `protocol`. */
  constructor(protocol) {
    this.#protocol = protocol
    this.#boundsMs = protocol?.latencyBoundsMs ?? BOUNDS_MS
    this.#latency = [...this.#boundsMs, Infinity].map(() => 0)
  }

  /** A command has ended, with an error or null. */
  ended(command, error) {
    // close() sends no command.
    if (command === undefined) return
    add(this.#commands, command, error === null ? "ok" : error.code, 1)
  }

  /** A command was answered or reached its deadline after `ms` milliseconds. */
  took(ms) {
    const at = this.#boundsMs.findIndex((bound) => ms <= bound)
    this.#latency[at === -1 ? this.#boundsMs.length : at]++
    this.#sumMs += ms
  }

  /** The result of store.stats(): these counters plus, if given, those of src/core/stats.rs. */
  read({ pending, batches, sharedBy }, numbers) {
    const commands = {}
    for (const [command, outcomes] of Object.entries(this.#commands)) {
      for (const [outcome, count] of Object.entries(outcomes)) add(commands, command, outcome, count)
    }
    const counts = [...this.#latency]
    const [bytesSent, bytesReceived, reconnects, sumMs, ...more] = numbers ?? [0, 0, 0, 0]
    for (const [at, count] of more.splice(0, counts.length).entries()) counts[at] += count
    for (const [at, count] of more.entries()) {
      const { countedCommands, outcomes } = this.#protocol
      const command = countedCommands[Math.floor(at / outcomes.length)]
      if (count > 0) add(commands, command, outcomes[at % outcomes.length], count)
    }
    return {
      commands,
      latency: { boundsMs: [...this.#boundsMs], counts, sumMs: this.#sumMs + sumMs },
      pending,
      batches,
      sharedBy,
      reconnects,
      bytesSent,
      bytesReceived,
    }
  }
}

function add(commands, command, outcome, count) {
  commands[command] ??= {}
  commands[command][outcome] = (commands[command][outcome] ?? 0) + count
}

/** Adds the counters of the fallback client to those of the store. */
function addStats(stats, more) {
  for (const [command, outcomes] of Object.entries(more.commands)) {
    for (const [outcome, count] of Object.entries(outcomes)) add(stats.commands, command, outcome, count)
  }
  for (const [at, count] of more.latency.counts.entries()) stats.latency.counts[at] += count
  stats.latency.sumMs += more.latency.sumMs
  stats.pending += more.pending
}

module.exports = { addStats, BOUNDS_MS, Counts }
