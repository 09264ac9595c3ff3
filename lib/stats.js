"use strict"

/** Upper bounds of the classes of latency of a store that delegates, as of one that does not: there may be no binding to ask. */
const BOUNDS_MS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000]

/** What JavaScript has counted: all of a store that delegates; of others, what never reached Rust. */
class Counts {
  /** By command, then by outcome. */
  #commands = {}
  #latency = [...BOUNDS_MS, Infinity].map(() => 0)
  #sumMs = 0

  /** A command has come to its end, with an error or null. */
  ended(command, error) {
    // close() asks nothing of Redis.
    if (command === undefined) return
    add(this.#commands, command, error === null ? "ok" : error.code, 1)
  }

  /** A command was answered, or ran into its deadline, after so many milliseconds. */
  took(ms) {
    const at = BOUNDS_MS.findIndex((bound) => ms <= bound)
    this.#latency[at === -1 ? BOUNDS_MS.length : at]++
    this.#sumMs += ms
  }

  /** What store.stats() returns: these counts and, if given, those of src/engine/stats.rs, in the words of `protocol`. */
  read({ pending, batches }, numbers, protocol) {
    const commands = {}
    for (const [command, outcomes] of Object.entries(this.#commands)) {
      for (const [outcome, count] of Object.entries(outcomes)) add(commands, command, outcome, count)
    }
    const counts = [...this.#latency]
    const [bytesSent, bytesReceived, reconnects, sumMs, ...more] = numbers ?? [0, 0, 0, 0]
    for (const [at, count] of more.splice(0, counts.length).entries()) counts[at] += count
    for (const [at, count] of more.entries()) {
      const { countedCommands, outcomes } = protocol
      const command = countedCommands[Math.floor(at / outcomes.length)]
      if (count > 0) add(commands, command, outcomes[at % outcomes.length], count)
    }
    return {
      commands,
      latency: { boundsMs: [...BOUNDS_MS], counts, sumMs: this.#sumMs + sumMs },
      pending,
      batches,
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

module.exports = { Counts }
