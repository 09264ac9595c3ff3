"use strict"

const { OPERATIONS } = require("../operations.js")
const { markerOf } = require("../races/marker.js")
const { nextTick, setTimeout } = require("../timers.js")
const { Forwarding, MOVING, follow, intercept, isMiss } = require("./forwarding.js")
const { hashId } = require("./hash.js")

/** How often and how long a write waits for a session that is being moved. */
const TRIES = 20
const PAUSE_MS = 5

/**
 * A backend whose keys have ids, where other processes move sessions to keys with hashes of them already: what is
 * not found under the id is looked for under its hash, and a session is written where it is.
 */
class Preparation extends Forwarding {
  #keyPrefix

  /** `keyPrefix()` is what the client puts before keys. */
  constructor(backend, keyPrefix) {
    super(backend)
    this.#keyPrefix = keyPrefix
  }

  send(operation, key, value, number, request) {
    const hashed = hashedKeyOf(key, request)
    const send = (at, next, as = operation) => this.to.send(as, at, value, number, next)
    if (hashed === undefined) return send(key, request)
    if (operation === OPERATIONS.set || operation === OPERATIONS.replace) {
      return this.#write(hashed, key, request, operation === OPERATIONS.set, send)
    }
    if (operation === OPERATIONS.expire && number <= 0) {
      intercept(request, (reply, settle) => send(hashed, follow(request, sum(reply, settle))))
    } else intercept(request, (reply, settle) => isNothing(reply) && send(hashed, follow(request, settle)))
    send(key, request)
  }

  /** Where it is, or else under its id. */
  #write(hashed, key, request, isSet, send) {
    intercept(request, (reply, settle) => {
      if (reply !== null) return false
      const written = (error, second) => {
        // Moved in between.
        if (error === null && second === null && !isSet)
          return send(hashed, follow(request, settle), OPERATIONS.replace)
        settle(error, error === null ? second : null)
      }
      return send(key, follow(request, written))
    })
    send(hashed, request, OPERATIONS.replace)
  }

  byUser(operation, about, request) {
    const { key } = about
    const hashed = key === undefined ? undefined : hashedKeyOf(key, request)
    const send = (at, next) => this.to.byUser(operation, { ...about, key: at }, next)
    if (hashed === undefined) return this.to.byUser(operation, about, request)
    if (operation === OPERATIONS.save) return this.#write(hashed, key, request, false, send)
    intercept(request, (left, settle) => send(left === -2 ? key : hashed, follow(request, settle)))
    this.to.send(OPERATIONS.pttl, hashed, "", 0, request)
  }

  swap(key, base, value, ttl, request) {
    this.#whereItIs(key, request, (at, next) => this.to.swap(at, base, value, ttl, next))
  }

  merge(key, texts, ttl, withinMs, request) {
    const { theirs } = texts
    this.#whereItIs(key, request, (at, next) => {
      if (at === key && theirs.startsWith(MOVING)) nextTick(answer, next, theirs)
      else this.to.merge(at, texts, ttl, withinMs, next)
    })
  }

  #whereItIs(key, request, send) {
    const hashed = hashedKeyOf(key, request)
    if (hashed === undefined) return send(key, request)
    intercept(request, (reply, settle) => {
      if (reply !== null) return false
      let tries = 0
      const again = (error, second) => {
        if (error === null && second === null) return send(hashed, follow(request, settle))
        // It is being moved.
        if (typeof second === "string" && second.startsWith(MOVING) && tries++ < TRIES) {
          const moved = (failure, third) => {
            if (failure !== null || third !== null) return settle(failure, failure === null ? third : null)
            setTimeout(() => request.runInAsyncScope(send, null, key, follow(request, again)), PAUSE_MS)
          }
          return send(hashed, follow(request, moved))
        }
        settle(error, error === null ? second : null)
      }
      return send(key, follow(request, again))
    })
    send(hashed, request)
  }

  /** Both keys have markers, as other processes know one of them each. */
  destroy(key, prefix, request) {
    const hashed = hashedKeyOf(key, request)
    if (hashed !== undefined) {
      intercept(request, (reply, settle) => this.to.destroy(hashed, prefix, follow(request, sum(reply, settle))))
    }
    this.to.destroy(key, prefix, request)
  }

  restore(operation, key, prefix, value, ttl, known, request) {
    const restore = (next) => this.to.restore(operation, key, prefix, value, ttl, known, next)
    const hashed = hashedKeyOf(key, request)
    if (hashed === undefined) return restore(request)
    intercept(request, (left, settle) => left <= known && restore(follow(request, settle)))
    this.to.send(OPERATIONS.pttl, markerOf(prefix, hashed, this.#keyPrefix()), "", 0, request)
  }
}

/** The key that a session of `request` has by the hash of its id. */
function hashedKeyOf(key, { sid }) {
  if (sid === undefined) return undefined
  const name = String(sid)
  return key.slice(0, key.length - name.length) + hashId(name)
}

function answer(request, reply) {
  request.settle(null, reply)
}

/** Of a key that is not there: nil for GET, 0 for PEXPIRE, -2 for PTTL. */
function isNothing(reply) {
  return isMiss(reply) || reply === 0 || reply === -2
}

function sum(first, settle) {
  return (error, second) => settle(error, error === null ? first + second : null)
}

module.exports = { Preparation }
