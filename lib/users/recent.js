"use strict"

const { now } = require("../timers.js")
const { FOR_EVER } = require("../options/ttl.js")

const HALF = 2 ** 15

/**
 * Which sessions this process has entered lately, by key: for which user, and until when. Bounded: sessions are
 * forgotten by the thousand, and what is used moves to the newer half.
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

  /** Whether the entry of `key` is of `user` and need not be written for a session that is to live for `ttl`. */
  has(key, user, ttl) {
    const entry = this.get(key)
    return entry !== undefined && entry.user === user && isFresh(entry, ttl)
  }

  /** `entry` was written at `at` for a session that lives for `ttl`. */
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

/** Whether less than a tenth of a life has passed since `entry` was written. */
function isFresh(entry, ttl) {
  if (ttl === FOR_EVER || entry.ttl === FOR_EVER) return ttl === entry.ttl
  return Math.abs(now() + ttl - entry.expires) <= entry.ttl / 10
}

module.exports = { Recent, isFresh }
