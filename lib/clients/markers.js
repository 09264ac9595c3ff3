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
   * client runs no scripts. Resolves to true, or to `[left, end]` of the marker; to null if it cannot be read. The
   * operation `add` resolves to a value that there is, and does not replace it; `marker` writes nothing. The marker of
   * the key `also`, which may be empty, counts too, but not in a cluster.
   */
  async restore(name, key, prefix, value, ttl, known, also = "") {
    const own = keyPrefixOf(this.#client)
    const markers = [markerOf(prefix, key, own)]
    // The others are in other slots.
    if (!isCluster(this.#client)) {
      markers.push(markerOf(prefix, prefix, own))
      if (also !== "") markers.push(markerOf(prefix, also, own))
    }
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
    const found = await this.#newest(markers, known)
    if (found !== true || name === "marker") return found
    const { get } = this.#dialect
    const there = name === "add" ? await this.#ask("get", (done) => get(this.#client, key, done), textOf) : null
    if (there !== null) return there
    await this.#set(key, value, ttl)
    // Detects a session that was destroyed in between: its marker is written before it is removed.
    const since = await this.#newest(markers, known)
    if (since !== true) await this.#ask("del", (done) => this.#dialect.del(this.#client, key, done), Number)
    return since
  }

  /**
   * `[left, end]` of the newest of these markers, if it expires after `known`; true if none does, null if they
   * cannot be read. The end is an upper bound, and compared by its lower bound, so that a marker is not taken for a
   * later one.
   */
  async #newest(markers, known) {
    let newest = true
    for (const marker of markers) {
      const [left, askedAt] = await this.#left(marker)
      const end = now() + left
      if (left === Infinity) return null
      if (left >= 0 && askedAt + left > known && (newest === true || end > newest[1])) newest = [left, end]
    }
    return newest
  }

  /** How long a marker lives: -1 if there is none, Infinity if it cannot be read. Then when PTTL was sent. */
  async #left(marker) {
    const { get, pttl } = this.#dialect
    const text = await this.#ask("get", (done) => get(this.#client, marker, done), textOf)
    const askedAt = now()
    if (text === null) return [-1, askedAt]
    if (!hasPttl(this.#client)) return [Infinity, askedAt]
    try {
      const left = await this.#ask("pttl", (done) => pttl(this.#client, marker, done), Number)
      // Any other value means that PTTL bypassed the wrapper and read another key.
      return [left > 0 && left <= MARKER_LIFE_MS ? left : Infinity, askedAt]
    } catch {
      // A mock may declare a method that it lacks.
      return [Infinity, askedAt]
    }
  }

  #set(key, value, ms) {
    return this.#ask("set", (done) => this.#dialect.set(this.#client, key, value, ms, done), textOf)
  }
}

module.exports = { Markers }
