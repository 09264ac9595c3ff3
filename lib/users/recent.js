"use strict"

const { now } = require("../timers.js")
const { FOR_EVER } = require("../options/ttl.js")

const HALF = 2 ** 15

/**
 * The index entries that this process has written lately, by session id: the prefix, the user, and the expiry. Not by key:
 * a key is a new string each time, so its hash would be computed again. The size is limited: the older half is dropped at
 * once, and sessions in use move to the newer half.
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

  /** Records that `entry`, of entryOf(), was written at `at` for a session with this `ttl`. */
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

/** Whether less than a tenth of the session's life has passed since `entry` was written. */
function isFresh(entry, ttl) {
  if (ttl === FOR_EVER || entry.ttl === FOR_EVER) return ttl === entry.ttl
  return Math.abs(now() + ttl - entry.expires) <= entry.ttl / 10
}

module.exports = { Recent, entryOf, isFresh }
