"use strict"

const { timeoutError } = require("../errors.js")
const { OPERATIONS } = require("../operations.js")
const { isRefusal } = require("../races/gone.js")
const { MARKER_LIFE_MS } = require("../races/marker.js")
const { FOR_EVER } = require("../options/ttl.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { Forwarding, MOVING, follow, intercept, isMiss } = require("./forwarding.js")
const { HASH_UNITS } = require("./hash.js")

/** Moves of a session that others write meanwhile. */
const TRIES = 5
const LATE = "The session could not be moved to its hashed key"

/**
 * A backend whose keys have hashes of ids, in front of one that may still hold sessions under the ids
 * themselves: a session that is asked for under its hash is moved there, and a write leaves no other key.
 */
class Migration extends Forwarding {
  #sealing
  #commandTimeoutMs

  constructor(backend, sealing, commandTimeoutMs) {
    super(backend)
    this.#sealing = sealing
    this.#commandTimeoutMs = commandTimeoutMs
  }

  send(operation, key, value, number, request) {
    const old = plainKeyOf(key, request)
    if (old === undefined || operation === OPERATIONS.replace) {
      return this.to.send(operation, key, value, number, request)
    }
    if (operation === OPERATIONS.get) intercept(request, (reply) => isMiss(reply) && this.#find(key, old, request))
    else if (operation === OPERATIONS.pttl) {
      const ask = (settle) => this.to.send(OPERATIONS.pttl, old, "", 0, follow(request, settle))
      intercept(request, (reply, settle) => reply === -2 && ask(settle))
    } else if (operation === OPERATIONS.set || number <= 0) this.#removing(old, request, () => true)
    else {
      intercept(request, (reply, settle) => {
        const again = (error, found) => {
          if (error !== null || isMiss(found)) return settle(error, error === null ? reply : null)
          this.to.send(operation, key, value, number, follow(request, settle))
        }
        return reply === 0 && this.#find(key, old, follow(request, again))
      })
    }
    this.to.send(operation, key, value, number, request)
  }

  /** Removes what is under the id once `request` is answered, if `isWritten(reply)`. */
  #removing(old, request, isWritten) {
    intercept(request, (reply, settle) => {
      if (!isWritten(reply)) return false
      const removed = (error) => settle(error, error === null ? reply : null)
      return this.to.send(OPERATIONS.expire, old, "", 0, follow(request, removed))
    })
  }

  byUser(operation, about, request) {
    if (operation === OPERATIONS.revoke) return this.#revoke(about, request)
    const old = about.key === undefined ? undefined : plainKeyOf(about.key, request)
    if (old !== undefined && operation === OPERATIONS.signIn) this.#removing(old, request, (count) => count > 0)
    if (old !== undefined && operation === OPERATIONS.save) this.#removing(old, request, (reply) => reply !== null)
    this.to.byUser(operation, about, request)
  }

  /** As `destroy`: first under the ids, without markers. */
  async #revoke(about, request) {
    const isHashed = ({ key, handle }) => key.endsWith(handle)
    const olds = about.items.filter((item) => !isHashed(item))
    if (olds.length === 0) return this.to.byUser(OPERATIONS.revoke, about, request)
    const settle = (error, count) => request.settle(error, count)
    try {
      const counts = await Promise.all(
        olds.map(({ key }) => this.#ask(request, (next) => this.to.send(OPERATIONS.expire, key, "", 0, next))),
      )
      const removed = counts.reduce((sum, count) => sum + count, 0)
      const items = about.items.filter(isHashed)
      const next = follow(request, (error, count) => settle(error, error === null ? removed + count : null))
      this.to.byUser(OPERATIONS.revoke, { ...about, items }, next)
    } catch (error) {
      nextTick(settle, error, null)
    }
  }

  /** First under the id: a session that is read there before is dropped by the younger marker of its hash. */
  destroy(key, prefix, request) {
    const old = plainKeyOf(key, request)
    if (old === undefined) return this.to.destroy(key, prefix, request)
    intercept(request, (removed, settle) => {
      const both = (error, count) => settle(error, error === null ? removed + count : null)
      return this.to.destroy(key, prefix, follow(request, both))
    })
    // Without a marker: that would show the id.
    this.to.send(OPERATIONS.expire, old, "", 0, request)
  }

  /** There is nothing under `key`: `request` is settled with what is under `old`, or is there by now. */
  async #find(key, old, request) {
    const startedAt = request.startedAt || request.sentAt || now()
    const left = Math.floor(startedAt + this.#commandTimeoutMs - now())
    const late = () => timeoutError(LATE, this.#commandTimeoutMs)
    const settle = withDeadline(left, late, (error, reply) => request.settle(error, reply))
    try {
      const [reply] = await this.#moved(key, old, request)
      nextTick(settle, null, reply)
    } catch (error) {
      nextTick(settle, error, null)
    }
  }

  async #moved(key, old, request) {
    for (let tries = 0; tries < TRIES; tries++) {
      const at = now()
      const [stored, lives, current] = await Promise.all([
        this.#ask(request, (next) => this.to.send(OPERATIONS.get, old, "", 0, next)),
        this.#ask(request, (next) => this.to.send(OPERATIONS.pttl, old, "", 0, next)),
        this.#ask(request, (next) => this.to.send(OPERATIONS.get, key, "", 0, next)),
      ])
      if (!isMiss(current)) {
        if (!isMiss(stored)) await this.#remove(old, stored, request)
        return [this.#reply(key, current, request)]
      }
      if (isMiss(stored) || lives === -2) return [null]
      const claimed = await this.#claim(old, stored, request)
      if (claimed === undefined) continue
      const ttl = lives < 0 ? FOR_EVER : Math.max(lives, 1)
      const value = this.#sealing.seal(key, this.#sealing.open(old, stored))
      const found = await this.#add(key, old, { value, ttl, at }, request)
      if (found === null) return [null]
      const later = await this.#remove(old, claimed, request)
      if (later === undefined) return [this.#reply(key, found, request)]
      // Written under its id all the same, by a process that overwrites: the last save counts.
      const last = this.#sealing.seal(key, this.#sealing.open(old, later))
      await this.#ask(request, (next) => this.to.rewrite(key, found, last, next))
      await this.#remove(old, later, request)
    }
    return [null]
  }

  /** Stores `value` unless the session was destroyed after it was read; returns what is there, or null. */
  async #add(key, old, { value, ttl, at }, request) {
    const prefix = key.slice(0, key.length - HASH_UNITS)
    let known = -1
    for (;;) {
      let reply
      try {
        const left = known
        reply = await this.#ask(request, (next) => this.to.restore(OPERATIONS.add, key, prefix, value, ttl, left, next))
      } catch (error) {
        if (!isRefusal(error)) throw error
        reply = null
      }
      if (reply === true) return value
      if (typeof reply === "string") return reply
      if (typeof reply === "number" && now() - (MARKER_LIFE_MS - reply) + 1 >= at) return null
      if (typeof reply === "number") known = reply
      else {
        // Without scripts that cannot be known.
        await this.#ask(request, (next) => this.to.send(OPERATIONS.set, key, value, ttl, next))
        return value
      }
    }
  }

  /**
   * Marks `old` as being moved, so that processes that write it look for its hash; returns what it is then.
   * Undefined if it was written meanwhile.
   */
  async #claim(old, stored, request) {
    // By a process that has ended since, perhaps.
    if (stored.startsWith(MOVING)) return stored
    const claimed = MOVING + stored
    try {
      const reply = await this.#ask(request, (next) => this.to.rewrite(old, stored, claimed, next))
      return reply === true ? claimed : undefined
    } catch (error) {
      // Without scripts it is not marked.
      if (error.code === "ERR_REDIS_STORE_OPTIONS" || isRefusal(error)) return stored
      throw error
    }
  }

  /** Removes `old` if it still is `stored`; else returns what it is. */
  async #remove(old, stored, request) {
    const reply = await this.#ask(request, (next) => this.to.remove(old, stored, next))
    if (typeof reply === "string") return reply
    if (reply !== false) return undefined
    return (await this.#ask(request, (next) => this.to.send(OPERATIONS.get, old, "", 0, next))) ?? undefined
  }

  /** What `request` gets for what is stored: its text where the backend opens it. */
  #reply(key, stored, { sealing }) {
    return sealing === undefined ? stored : sealing.open(key, stored)
  }

  #ask(request, send) {
    return new Promise((resolve, reject) => {
      const next = follow(request, (error, reply) => (error === null ? resolve(reply) : reject(error)))
      next.sealing = undefined
      send(next)
    })
  }
}

/** The key that a session of `request` had by its id; undefined where `key` is not that of its hash. */
function plainKeyOf(key, { sid }) {
  if (sid === undefined) return undefined
  const name = key.slice(0, key.length - HASH_UNITS)
  return name + String(sid)
}

module.exports = { Migration }
