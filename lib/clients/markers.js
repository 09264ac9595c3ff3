"use strict"

const { MARKER_LIFE_MS, RESTORE_SCRIPT, markerOf } = require("../races/marker.js")
const { hasPttl, isCluster } = require("./dialects.js")
const { keyPrefixOf } = require("./keyspace.js")
const { added, restored, textOf } = require("./replies.js")

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
   * SET of `value` unless a marker has more than `known` milliseconds left. Resolves to true, or to the
   * milliseconds left; to null if the marker cannot be read. If it `adds` and there is a value, to that.
   */
  async restore(key, prefix, value, ttl, known, adds = false) {
    const own = keyPrefixOf(this.#client)
    const markers = [markerOf(prefix, key, own)]
    // The marker of all keys is in another slot.
    if (!isCluster(this.#client)) markers.push(markerOf(prefix, prefix, own))
    if (this.#dialect.script !== undefined) {
      const args = [value, ttl < 0 ? "" : String(ttl), adds ? "ADD" : "", String(known), String(MARKER_LIFE_MS)]
      const run = (keys) => {
        const script = (done) => this.#dialect.script(this.#client, RESTORE_SCRIPT, keys, args, done)
        return this.#ask("eval", script, adds ? added : restored)
      }
      try {
        return await run([key, ...markers])
      } catch (error) {
        if (markers.length === 1 || error.cause?.code !== "CROSSSLOT") throw error
        // A cluster behind one address.
        return run([key, markers[0]])
      }
    }
    const left = await this.#newest(markers)
    if (left > known) return isFinite(left) ? left : null
    const { get } = this.#dialect
    const there = adds ? await this.#ask("get", (done) => get(this.#client, key, done), textOf) : null
    if (there !== null) return there
    await this.#set(key, value, ttl)
    // Detects a session that was destroyed in between: its marker is written before it is removed.
    const since = await this.#newest(markers)
    if (since <= known) return true
    await this.#ask("del", (done) => this.#dialect.del(this.#client, key, done), Number)
    return isFinite(since) ? since : null
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
