"use strict"

const { turnTime } = require("../timers.js")
const { FOR_EVER } = require("../options/ttl.js")

const HALF = 2 ** 15

/**
 * The index entries that this process has written lately, by the name of a session, which follows the
 * prefix in its key: the prefix, the user, and the expiry. Not by key: a key is a new string each time, so its hash would be
 * computed again. The size is limited: the older half is dropped at
 * once, and sessions in use move to the newer half.
 */
class Recent {
  #newer = new Map()
  #older = new Map()
  /** The number of connections so far. */
  #connections = 0

  /** The entry of a session; undefined if it is not known under `prefix`. */
  get(name, prefix) {
    const entry = this.#newer.get(name) ?? this.#keep(name)
    return entry?.prefix === prefix ? entry : undefined
  }

  #keep(name) {
    const entry = this.#older.size === 0 ? undefined : this.#older.get(name)
    if (entry !== undefined) this.#put(entry)
    return entry
  }

  /** Records that `entry`, of entryOf(), was written at `at` for a session with this `ttl`. */
  entered(entry, ttl, at) {
    entry.ttl = ttl
    entry.expires = at + ttl
    entry.connection = this.#connections
    this.#put(entry)
  }

  /** Whether less than a tenth of the session's life has passed since `entry` was written, over this connection. */
  isFresh(entry, ttl) {
    if (entry.connection !== this.#connections) return false
    if (ttl === FOR_EVER || entry.ttl === FOR_EVER) return ttl === entry.ttl
    return Math.abs(turnTime() + ttl - entry.expires) <= entry.ttl / 10
  }

  /** A Redis that is back may have older data: every entry is written again with its session. */
  connected() {
    this.#connections++
  }

  delete(name) {
    this.#newer.delete(name)
    this.#older.delete(name)
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
    this.#newer.set(entry.name, entry)
  }
}

/** The entry of a session, not written yet. */
function entryOf(name, prefix, user, index, handle) {
  // One flat text: every save copies both, and V8 copies a text of many parts part by part.
  const place = [index, handle].join("")
  const units = index.length
  return {
    name,
    prefix,
    user,
    /** The user as the application has given it last. */
    id: undefined,
    index: place.slice(0, units),
    handle: place.slice(units),
    place,
    ttl: 0,
    expires: 0.5,
    connection: -1,
  }
}

module.exports = { Recent, entryOf }
