"use strict"

const { isRefusal } = require("../races/gone.js")
const { NONE_KNOWN, endIfBefore } = require("../races/marker.js")
const { FOR_EVER } = require("../options/ttl.js")
const { OPERATIONS } = require("../operations.js")
const { now } = require("../timers.js")
const { HASH_UNITS } = require("./hash.js")

/** Before what is stored under an id while it is being moved: src/sealing/mod.rs opens it as if it were not there. */
const MOVING = "~1m."

/**
 * Moves sessions from the key of their id to that of its hash. A move claims, adds, then removes; any process may end
 * what another one has begun.
 *
 * | state | under the id | under the hash | the session is | next state |
 * |---|---|---|---|---|
 * | plain | text | | under the id | a move claims: claimed |
 * | claimed | `~1m.` and text | | under the id, and is not written there | a move adds it: both |
 * | both | anything | text | under the hash, whatever is under the id | a move removes what is under the id: moved |
 * | moved | | text | under the hash | |
 *
 * | process | reads | writes |
 * |---|---|---|
 * | without `hashIds` | id | id |
 * | "prepare" | id, then hash; the hash counts | hash if it is there, else id if that is not claimed, else ends the move and writes hash |
 * | "migrate" | hash, else moves and reads hash | hash, then removes what is under the id |
 * | `true` | hash | hash |
 *
 * All who read go from the id to the hash, as sessions do, so that none is missed on its way. Who removes a session
 * goes that way too, and leaves a marker of the hash, by which a move that has read it before does not add it. "migrate"
 * leaves that marker before, too, since a save under the id looks for no other.
 */
class Mover {
  #sealing

  constructor(sealing) {
    this.#sealing = sealing
  }

  /** Moves what is under `old` to `key`. Returns what is stored under `key` then, or null. */
  async move(steps, old, key) {
    for (;;) {
      const at = now()
      const [stored, lives] = await Promise.all([steps.get(old), steps.pttl(old)])
      // Only then: a session is under its hash before it is not under its id any more.
      const current = await steps.get(key)
      if (isMiss(stored)) return isMiss(current) ? null : current
      if (!isMiss(current)) return this.#finish(steps, { old, key, stored, found: current })
      const claimed = lives === -2 ? undefined : await claim(steps, old, stored)
      if (claimed === undefined) continue
      const value = this.#sealing.seal(key, this.#sealing.open(old, claimed))
      const ttl = lives < 0 ? FOR_EVER : Math.max(Math.floor(lives - (now() - at)), 1)
      const found = await add(steps, key, { value, ttl, at })
      if (found !== null) return this.#finish(steps, { old, key, stored: claimed, found })
      const left = await steps.remove(old, claimed)
      if (left === null || left === true) return null
    }
  }

  /** `found` is under `key`: `stored`, which is under `old`, is removed. */
  async #finish(steps, { old, key, stored, found }) {
    let isMoved = this.#isSame({ old, key, stored, found })
    if (isMoved) await extend(steps, old, key)
    let kept = found
    let left = stored
    for (;;) {
      const later = await steps.remove(old, left)
      if (later === true || later === null) return kept
      left = later
      if (!isMoved) continue
      // Written by a process that does not compare, after what was moved.
      const last = this.#sealing.seal(key, this.#sealing.open(old, later))
      isMoved = (await steps.swap(key, kept, last)) === true
      if (isMoved) kept = last
    }
  }

  /** Whether what is under `key` is what was moved there, and was not saved since. */
  #isSame({ old, key, stored, found }) {
    try {
      return this.#sealing.open(key, found) === this.#sealing.open(old, stored)
    } catch {
      return false
    }
  }
}

/**
 * Marks `old` as being moved, so that no process writes it; returns what it is then. Undefined if it was written
 * meanwhile. Where nothing can be compared it is not marked.
 */
async function claim(steps, old, stored) {
  if (stored.startsWith(MOVING)) return stored
  const reply = await steps.swap(old, stored, MOVING + stored)
  if (reply === undefined) return stored
  return reply === true ? MOVING + stored : undefined
}

/** Adds `value` unless the session was destroyed after it was read; returns what is there, or null. */
async function add(steps, key, { value, ttl, at }) {
  const prefix = key.slice(0, key.length - HASH_UNITS)
  let known = NONE_KNOWN
  for (;;) {
    const reply = await added(steps, { key, prefix, value, ttl, known })
    if (reply === true) return value
    if (typeof reply === "string") return reply
    if (reply === null) break
    const end = endIfBefore(at, reply)
    if (end === undefined) return null
    known = Math.max(end, known)
  }
  // Without scripts that cannot be known.
  const current = await steps.get(key)
  if (!isMiss(current)) return current
  await steps.send(OPERATIONS.set, key, value, ttl)
  return value
}

/**
 * SET of `value` if there is nothing: true; else what is there, or a marker that expires after `known`, as
 * `[left, end]`; null if that cannot be done.
 */
async function added(steps, { key, prefix, value, ttl, known }) {
  try {
    return await steps.ask((to, next) => to.restore(OPERATIONS.add, key, prefix, value, ttl, known, "", next))
  } catch (error) {
    if (isRefusal(error)) return null
    throw error
  }
}

/** A touch of what was under `old` counts for `key` too. */
async function extend(steps, old, key) {
  const [before, after] = await Promise.all([steps.pttl(old), steps.pttl(key)])
  if (after >= 0 && before > after) await steps.expire(key, before)
}

/** A marker's value is empty. */
function isMiss(reply) {
  return reply === null || reply === ""
}

module.exports = { MOVING, Mover, added, isMiss }
