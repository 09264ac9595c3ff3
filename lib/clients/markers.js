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

  /** `ask(name, command, read)` asks a command of the client. */
  constructor(client, dialect, ask) {
    this.#client = client
    this.#dialect = dialect
    this.#ask = ask
  }

  /** Writes a marker. A session is destroyed whether that can be done or not. */
  async write(marker) {
    try {
      await this.#set(marker, "", MARKER_LIFE_MS)
    } catch {}
  }

  /**
   * SET of `value` unless a marker has more than `known` milliseconds left: true, else that number. Null if it
   * cannot be known. If it `adds` and there is a value, that.
   */
  async restore(key, prefix, value, ttl, known, adds = false) {
    const own = keyPrefixOf(this.#client)
    const markers = [markerOf(prefix, key, own)]
    // That of all keys is in another slot.
    if (!isCluster(this.#client)) markers.push(markerOf(prefix, prefix, own))
    if (this.#dialect.script !== undefined) {
      const keys = [key, ...markers]
      const args = [value, ttl < 0 ? "" : String(ttl), adds ? "ADD" : "", String(known), String(MARKER_LIFE_MS)]
      const run = (done) => this.#dialect.script(this.#client, RESTORE_SCRIPT, keys, args, done)
      return this.#ask("eval", run, adds ? added : restored)
    }
    const left = await this.#newest(markers)
    if (left > known) return isFinite(left) ? left : null
    const { get } = this.#dialect
    const there = adds ? await this.#ask("get", (done) => get(this.#client, key, done), textOf) : null
    if (there !== null) return there
    await this.#set(key, value, ttl)
    // A session that was destroyed in between: its marker was written before it was removed.
    const since = await this.#newest(markers)
    if (since <= known) return true
    await this.#ask("del", (done) => this.#dialect.del(this.#client, key, done), Number)
    return isFinite(since) ? since : null
  }

  /** The milliseconds that the newest of these has left: -1 without any, infinity if the client cannot say. */
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
      // Otherwise a wrapper has passed that command by: it was asked about another key.
      return left > 0 && left <= MARKER_LIFE_MS ? left : Infinity
    } catch {
      // A mock may lack what it declares.
      return Infinity
    }
  }

  #set(key, value, ms) {
    return this.#ask("set", (done) => this.#dialect.set(this.#client, key, value, ms, done), textOf)
  }
}

module.exports = { Markers }
