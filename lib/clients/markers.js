"use strict"

const { now } = require("../timers.js")
const { MARKER_LIFE_MS, RESTORE_SCRIPT, markerOf } = require("../races/marker.js")
const { hasPttl, isCluster } = require("./dialects.js")
const { keyPrefixOf } = require("./keyspace.js")
const { added, restored, textOf } = require("./replies.js")

/** The argument of the script for an operation. */
const MODES = { restore: "", add: "ADD", marker: "ASK" }

/** Markers by the client's own commands. */
class Markers {
  #client
  #dialect
  #ask

  /** `ask(name, command, read)` runs a command of the client. */
  constructor(client, dialect, ask) {
    this.#client = client
    this.#dialect = dialect
    this.#ask = ask
  }

  /** Writes a marker. An error is ignored: the session is destroyed in any case. */
  async write(marker) {
    try {
      await this.#set(marker, "", MARKER_LIFE_MS)
    } catch {}
  }

  /**
   * SET of `value` unless a marker expires after `known`, by the clock of the server, or of this process if the
   * client runs no scripts. Resolves to true, or to the time by that clock; to null if the marker cannot be read. The
   * operation `add` resolves to a value that there is, and does not replace it; `marker` writes nothing, and
   * resolves to -1.
   */
  async restore(name, key, prefix, value, ttl, known) {
    const own = keyPrefixOf(this.#client)
    const markers = [markerOf(prefix, key, own)]
    // The marker of all keys is in another slot.
    if (!isCluster(this.#client)) markers.push(markerOf(prefix, prefix, own))
    if (this.#dialect.script !== undefined) {
      const args = [value, ttl < 0 ? "" : String(ttl), MODES[name], String(known), String(MARKER_LIFE_MS)]
      const run = (keys) => {
        const script = (done) => this.#dialect.script(this.#client, RESTORE_SCRIPT, keys, args, done)
        return this.#ask("eval", script, name === "add" ? added : restored)
      }
      try {
        return await run([key, ...markers])
      } catch (error) {
        if (markers.length === 1 || error.cause?.code !== "CROSSSLOT") throw error
        // A cluster behind one address.
        return run([key, markers[0]])
      }
    }
    const marked = await this.#timeIfMarked(markers, known)
    if (marked !== -1 || name === "marker") return marked
    const { get } = this.#dialect
    const there = name === "add" ? await this.#ask("get", (done) => get(this.#client, key, done), textOf) : null
    if (there !== null) return there
    await this.#set(key, value, ttl)
    // Detects a session that was destroyed in between: its marker is written before it is removed.
    const since = await this.#timeIfMarked(markers, known)
    if (since === -1) return true
    await this.#ask("del", (done) => this.#dialect.del(this.#client, key, done), Number)
    return since
  }

  /** The time if one of these markers expires after `known`, else -1; null if they cannot be read. */
  async #timeIfMarked(markers, known) {
    const newest = await this.#newest(markers)
    const time = now()
    if (newest === Infinity) return null
    return newest >= 0 && time + newest > known ? time : -1
  }

  /**
   * The milliseconds that the newest of these markers has left: -1 without one, Infinity if the client cannot
   * read it.
   */
  async #newest(markers) {
    let newest = -1
    for (const marker of markers) newest = Math.max(newest, await this.#left(marker))
    return newest
  }

  async #left(marker) {
    const { get, pttl } = this.#dialect
    const text = await this.#ask("get", (done) => get(this.#client, marker, done), textOf)
    if (text === null) return -1
    if (!hasPttl(this.#client)) return Infinity
    try {
      const left = await this.#ask("pttl", (done) => pttl(this.#client, marker, done), Number)
      // Any other value means that PTTL bypassed the wrapper and read another key.
      return left > 0 && left <= MARKER_LIFE_MS ? left : Infinity
    } catch {
      // A mock may declare a method that it lacks.
      return Infinity
    }
  }

  #set(key, value, ms) {
    return this.#ask("set", (done) => this.#dialect.set(this.#client, key, value, ms, done), textOf)
  }
}

module.exports = { Markers }
