"use strict"

const { now } = require("../timers.js")
const { FOR_EVER } = require("../options/ttl.js")

const HALF = 2 ** 15

/**
 * Which sessions this process has entered lately, by id: under which prefix, for which user, and until when. By id and
 * not by key: a key is a new string each time, whose hash is computed again. Bounded: sessions are forgotten by the
 * thousand, and what is used moves to the newer half.
 */
class Recent {
  #newer = new Map()
  #older = new Map()

  /** The entry of a session; undefined if it is not known under `prefix`. */
  get(sid, prefix) {
    const entry = this.#newer.get(sid) ?? this.#keep(sid)
    return entry?.prefix === prefix ? entry : undefined
  }

  #keep(sid) {
    const entry = this.#older.size === 0 ? undefined : this.#older.get(sid)
    if (entry !== undefined) this.#put(entry)
    return entry
  }

  /** `entry`, of entryOf(), was written at `at` for a session that lives for `ttl`. */
  entered(entry, ttl, at) {
    entry.ttl = ttl
    entry.expires = at + ttl
    this.#put(entry)
  }

  delete(sid) {
    this.#newer.delete(sid)
    this.#older.delete(sid)
  }

  clear() {
    this.#newer.clear()
    this.#older.clear()
  }

  #put(entry) {
    if (this.#newer.size >= HALF) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(entry.sid, entry)
  }
}

/** The entry of a session, not written yet. */
function entryOf(sid, prefix, user, index, handle) {
  return { sid, prefix, user, index, handle, ttl: 0, expires: 0.5 }
}

/** Whether less than a tenth of a life has passed since `entry` was written. */
function isFresh(entry, ttl) {
  if (ttl === FOR_EVER || entry.ttl === FOR_EVER) return ttl === entry.ttl
  return Math.abs(now() + ttl - entry.expires) <= entry.ttl / 10
}

module.exports = { Recent, entryOf, isFresh }
