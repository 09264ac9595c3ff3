"use strict"

const { RedisStoreError } = require("../errors.js")
const { now } = require("../timers.js")
const { MARKER_LIFE_MS } = require("./marker.js")

/** Replies of servers that have no scripts, deny them, or do not let one name a session and its marker. */
const REFUSALS = new Set(["ERR", "NOPERM", "CROSSSLOT"])
/** What such a reply can quote, and is no refusal. */
const FAILURES = /\b(?:OOM|MISCONF|READONLY|NOREPLICAS)\b/

/**
 * Saves that find their session gone. One that was destroyed after it was loaded stays so; one that expired
 * or was evicted is written.
 */
class Gone {
  #onDestroyed
  #oldestMs
  #follow
  #destroyed

  /**
   * `follow(request, send, done)` sends another command of a request: `send(next)`, then `done(error, reply)`.
   * `destroyed(request)` hears of each session that is not written.
   */
  constructor({ onDestroyed, commandTimeoutMs }, follow, destroyed) {
    this.#onDestroyed = onDestroyed
    // A marker of a session that was loaded longer ago may be over before the save is looked at.
    this.#oldestMs = MARKER_LIFE_MS - Math.min(commandTimeoutMs, MARKER_LIFE_MS / 2)
    this.#follow = follow
    this.#destroyed = destroyed
  }

  /**
   * `save.send(known)` makes the attempt, of which a marker with no more than `known` milliseconds left is
   * no obstacle; `save.at` is when the session was loaded. It ends by `save.written()`,
   * `save.found(theirs)` or one of the request.
   */
  settle(request, save) {
    if (save.at === undefined || now() - save.at > this.#oldestMs) return this.#drop(request)
    this.#attempt(request, save, -1)
  }

  #attempt(request, save, known) {
    this.#follow(
      request,
      (next) => save.send(known, next),
      (error, reply) => {
        if (error !== null) return isRefusal(error) ? this.#drop(request) : save.failed(error)
        if (typeof reply === "string") return save.found(reply)
        if (reply === true) return save.written()
        if (typeof reply !== "number") return this.#drop(request)
        // No later than that: the reply has travelled.
        const destroyedAt = now() - (MARKER_LIFE_MS - reply) + 1
        if (destroyedAt >= save.at) return this.#drop(request)
        this.#attempt(request, save, reply)
      },
    )
  }

  #drop(request) {
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

module.exports = { Gone, isRefusal }
