"use strict"

const { timeoutError } = require("../errors.js")
const { isRefusal } = require("../races/gone.js")
const { MARKER_LIFE_MS } = require("../races/marker.js")
const { FOR_EVER } = require("../options/ttl.js")
const { Request } = require("../request.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { HASH_UNITS } = require("./hash.js")

/** Moves of a session that others write meanwhile. */
const TRIES = 5
const LATE = "The session could not be moved to its hashed key"

/**
 * A backend whose keys have hashes of ids, in front of one that may still hold sessions under the ids
 * themselves: a session that is asked for under its hash is moved there, and a write leaves no other key.
 */
class Migration {
  #to
  #sealing
  #commandTimeoutMs

  constructor(backend, sealing, commandTimeoutMs) {
    this.#to = backend
    this.#sealing = sealing
    this.#commandTimeoutMs = commandTimeoutMs
  }

  get native() {
    return this.#to.native
  }

  get status() {
    return this.#to.status
  }

  connect() {
    this.#to.connect()
  }

  stats() {
    return this.#to.stats()
  }

  close() {
    return this.#to.close()
  }

  keep() {
    this.#to.keep?.()
  }

  release() {
    this.#to.release?.()
  }

  mget(...args) {
    this.#to.mget(...args)
  }

  swap(...args) {
    this.#to.swap(...args)
  }

  merge(...args) {
    this.#to.merge(...args)
  }

  rewrite(...args) {
    this.#to.rewrite(...args)
  }

  restore(...args) {
    this.#to.restore(...args)
  }

  send(operation, key, value, number, request) {
    const old = plainKeyOf(key, request)
    if (old === undefined || operation === "replace") return this.#to.send(operation, key, value, number, request)
    if (operation === "get") intercept(request, (reply) => isMiss(reply) && this.#find(key, old, request))
    else if (operation === "pttl") {
      intercept(request, (reply, settle) => reply === -2 && this.#to.send("pttl", old, "", 0, follow(request, settle)))
    } else if (operation === "set" || number <= 0) {
      intercept(request, (reply, settle) => {
        const removed = (error) => settle(error, error === null ? reply : null)
        return this.#to.send("expire", old, "", 0, follow(request, removed))
      })
    } else {
      intercept(request, (reply, settle) => {
        const again = (error, found) => {
          if (error !== null || isMiss(found)) return settle(error, error === null ? reply : null)
          this.#to.send(operation, key, value, number, follow(request, settle))
        }
        return reply === 0 && this.#find(key, old, follow(request, again))
      })
    }
    this.#to.send(operation, key, value, number, request)
  }

  destroy(key, prefix, request) {
    const old = plainKeyOf(key, request)
    if (old !== undefined) {
      intercept(request, (reply, settle) => {
        const removed = (error, count) => settle(error, error === null ? reply + count : null)
        // The marker of the hashed key says it; one of this key would show the id.
        return this.#to.send("expire", old, "", 0, follow(request, removed))
      })
    }
    this.#to.destroy(key, prefix, request)
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
        this.#ask(request, (next) => this.#to.send("get", old, "", 0, next)),
        this.#ask(request, (next) => this.#to.send("pttl", old, "", 0, next)),
        this.#ask(request, (next) => this.#to.send("get", key, "", 0, next)),
      ])
      if (!isMiss(current)) {
        if (!isMiss(stored)) await this.#remove(old, stored, request)
        return [this.#reply(key, current, request)]
      }
      if (isMiss(stored) || lives === -2) return [null]
      const ttl = lives < 0 ? FOR_EVER : Math.max(lives, 1)
      const value = this.#sealing.seal(key, this.#sealing.open(old, stored))
      const found = await this.#add(key, old, { value, ttl, at }, request)
      if (found === null) return [null]
      if (await this.#remove(old, stored, request)) return [this.#reply(key, found, request)]
      // Written under its id meanwhile: that is newer, unless what was moved was written too.
      await this.#remove(key, value, request)
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
        reply = await this.#ask(request, (next) => this.#to.restore("add", key, prefix, value, ttl, left, next))
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
        await this.#ask(request, (next) => this.#to.send("set", key, value, ttl, next))
        return value
      }
    }
  }

  /** Removes `old` if it still is `stored`: else it was written meanwhile. */
  async #remove(old, stored, request) {
    const reply = await this.#ask(request, (next) => this.#to.remove(old, stored, next))
    return reply !== false && typeof reply !== "string"
  }

  /** What `request` gets for what is stored: its text where the backend opens it. */
  #reply(key, stored, { sealing }) {
    return sealing === undefined ? stored : sealing.open(key, stored)
  }

  #ask(request, send) {
    return new Promise((resolve, reject) => {
      send(follow(request, (error, reply) => (error === null ? resolve(reply) : reject(error))))
    })
  }
}

/** The key that a session of `request` had by its id; undefined where `key` is not that of its hash. */
function plainKeyOf(key, { sid }) {
  if (sid === undefined) return undefined
  const name = key.slice(0, key.length - HASH_UNITS)
  return name + String(sid)
}

/** Lets `go(reply, settle)` go on with a reply of `request`, if it returns anything but false. */
function intercept(request, go) {
  const settle = request.settle.bind(request)
  request.settle = (error, reply) => {
    request.settle = settle
    if (error !== null || go(reply, settle) === false) settle(error, reply)
  }
}

/** A command of the same call, which is not about a session by its id. */
function follow(request, receive) {
  const next = request.runInAsyncScope(() => new Request((_own, error, reply) => receive(error, reply)))
  next.follows = true
  next.startedAt = request.startedAt
  return next
}

/** A marker's value, or that of a session that was moved, is empty. */
function isMiss(reply) {
  return reply === null || reply === ""
}

module.exports = { Migration }
