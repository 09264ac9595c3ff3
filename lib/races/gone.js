"use strict"

const { RedisStoreError } = require("../errors.js")
const { now } = require("../timers.js")
const { MARKER_LIFE_MS, NONE_KNOWN, endIfBefore } = require("./marker.js")

/** The reply to a save of a session that was destroyed meanwhile. */
const DROPPED = Symbol("dropped")
/** Error replies of servers that lack or deny scripts, or do not let a script name a session and its marker. */
const REFUSALS = new Set(["ERR", "NOPERM", "CROSSSLOT"])
/** Words in such a reply that mean another failure. */
const FAILURES = /\b(?:OOM|MISCONF|READONLY|NOREPLICAS)\b/

/**
 * Handles saves whose session no longer exists. A session that was destroyed after it was loaded is not
 * written; one that expired or was evicted is written.
 */
class Gone {
  #onDestroyed
  #oldestMs
  #follow
  #destroyed

  /**
   * `follow(request, send, done)` sends another command of a request: `send(next)`, then `done(error, reply)`.
   * `destroyed(request)` is called for each session that is not written.
   */
  constructor({ onDestroyed, commandTimeoutMs }, follow, destroyed) {
    this.#onDestroyed = onDestroyed
    // If the session was loaded before this, its marker may expire before the save is checked.
    this.#oldestMs = MARKER_LIFE_MS - Math.min(commandTimeoutMs, MARKER_LIFE_MS / 2)
    this.#follow = follow
    this.#destroyed = destroyed
  }

  /**
   * `save.send(known)` sends the save; it ignores markers that expire by the time `known` of the server. `save.at`
   * is the time of the load. Ends by a call of `save.written()` or `save.found(theirs)`, or by finishing the
   * request.
   */
  settle(request, save) {
    if (save.at === undefined || now() - save.at > this.#oldestMs) return this.drop(request)
    this.#attempt(request, save, NONE_KNOWN)
  }

  #attempt(request, save, known) {
    this.#follow(
      request,
      (next) => save.send(known, next),
      (error, reply) => {
        if (error !== null) return isRefusal(error) ? this.drop(request) : save.failed(error)
        if (typeof reply === "string") return save.found(reply)
        if (reply === true) return save.written()
        const end = Array.isArray(reply) ? endIfBefore(save.at, reply) : undefined
        if (end === undefined) return this.drop(request)
        this.#attempt(request, save, Math.max(end, known))
      },
    )
  }

  /** Ends a save whose session is not written. */
  drop(request) {
    this.#destroyed(request)
    if (this.#onDestroyed !== "error") return request.finish(null, null)
    request.finish(destroyedError(), null)
  }
}

function isRefusal(error) {
  return REFUSALS.has(error.cause?.code) && !FAILURES.test(`${error.message} ${error.cause.message}`)
}

function destroyedError() {
  return new RedisStoreError(
    "ERR_REDIS_STORE_DESTROYED",
    'The session was not saved: it was destroyed after it was loaded (option "onDestroyed").',
  )
}

module.exports = { DROPPED, Gone, isRefusal }
