"use strict"

const { now } = require("../timers.js")
const { FOR_EVER } = require("../options/ttl.js")

const HALF = 2 ** 15

/**
 * The index entries that this process has written lately, by session key: the user, and the expiry. The size is
 * limited: the older half is dropped at once, and sessions in use move to the newer half.
 */
class Recent {
  #newer = new Map()
  #older = new Map()

  get(key) {
    const found = this.#newer.get(key)
    if (found !== undefined || this.#older.size === 0) return found
    const old = this.#older.get(key)
    if (old !== undefined) this.#put(key, old)
    return old
  }

  /** Whether `key` has an entry of `user` that need not be written again for a session with this `ttl`. */
  has(key, user, ttl) {
    const entry = this.get(key)
    return entry !== undefined && entry.user === user && isFresh(entry, ttl)
  }

  /** Records that `entry` was written at `at` for a session with this `ttl`. */
  entered(key, { user, index, handle }, ttl, at) {
    this.#put(key, { user, index, handle, ttl, expires: at + ttl })
  }

  delete(key) {
    this.#newer.delete(key)
    this.#older.delete(key)
  }

  clear() {
    this.#newer.clear()
    this.#older.clear()
  }

  #put(key, entry) {
    if (this.#newer.size >= HALF) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(key, entry)
  }
}

/** Whether less than a tenth of the session's life has passed since `entry` was written. */
function isFresh(entry, ttl) {
  if (ttl === FOR_EVER || entry.ttl === FOR_EVER) return ttl === entry.ttl
  return Math.abs(now() + ttl - entry.expires) <= entry.ttl / 10
}

module.exports = { Recent, isFresh }
