"use strict"

const { AsyncLocalStorage } = require("node:async_hooks")

const { RedisStoreError, argumentError, decodeError, kindOf, thrownError, timeoutError } = require("../errors.js")
const { nextTick, now, withDeadline } = require("../timers.js")

const TRIES = 5
const LATE_SAVE = "The conflict of two writes could not be resolved"

/**
 * Resolves conflicts of one store: another request has written a session since it was loaded. Rust merges both,
 * or the application's function decides. Conflicts on one key take turns, so that requests of one process do
 * not compete.
 */
class Conflicts {
  #options
  /** By key, the conflicts that wait for an earlier one. */
  #turns = new Map()
  /** The keys that the running function decides on. Created on demand, because it makes every promise slower. */
  #deciding

  constructor(options) {
    this.#options = options
  }

  /**
   * Resolves `conflict`, then calls one of its functions: `done(paths)`, `gone(request)` or `failed(request,
   * error)`.
   */
  settle(conflict) {
    const { key } = conflict
    for (let outer = this.#deciding?.getStore(); outer !== undefined; outer = outer.outer) {
      if (outer.key !== key) continue
      const why = 'the function of the option "onConflict" has saved the session itself; return it instead'
      return conflict.failed(conflict.request, conflictError(why))
    }
    const { backend } = this.#options
    backend.keep()
    const ended = () => {
      backend.release()
      this.#next(key)
    }
    const start = () => this.#start(conflict, ended)
    const turns = this.#turns.get(key)
    if (turns !== undefined) return void turns.push(start)
    this.#turns.set(key, [])
    start()
  }

  #next(key) {
    const turns = this.#turns.get(key)
    const start = turns.shift()
    if (start === undefined) this.#turns.delete(key)
    else start()
  }

  #start(conflict, ended) {
    const { request } = conflict
    const finish = (error, paths) => {
      // Deferred, so that an error of this callback does not affect the next conflict.
      nextTick(ended)
      if (error !== null) conflict.failed(request, error)
      else if (paths === null) conflict.gone(request)
      else conflict.done(paths)
    }
    const late = () => timeoutError(LATE_SAVE, this.#options.commandTimeoutMs)
    const left = this.#left(request)
    const settle = withDeadline(left, late, (error, paths) => request.runInAsyncScope(finish, null, error, paths))
    if (left <= 0) return
    if (this.#options.onConflict === "merge") return this.#merge(conflict, left, settle)
    request.runInAsyncScope(() => {
      this.#decide(conflict).then(
        (paths) => nextTick(settle, null, paths),
        (error) => nextTick(settle, error, null),
      )
    })
  }

  /** Milliseconds until the deadline of `request`. */
  #left(request) {
    return Math.floor(request.startedAt + this.#options.commandTimeoutMs - now())
  }

  #merge({ request, key, base, value, ttl, theirs }, left, settle) {
    const merged = (error, reply) => {
      if (error !== null || reply === null) return settle(error, null)
      let paths
      try {
        paths = JSON.parse(reply)
      } catch (failure) {
        return settle(decodeError(request.sid, failure), null)
      }
      settle(null, paths)
    }
    const { backend, sealing } = this.#options
    const next = request.follow(merged)
    next.sealing = sealing.forMerges()
    backend.merge(key, { base, mine: value, theirs }, ttl, left, next)
  }

  /** Calls the application's function and writes its result. Null if the session does not exist. */
  async #decide(conflict) {
    const { request, key, base, value, created } = conflict
    const { serialize, lifetime, sealing } = this.#options
    let since = created
    const read = async (text) => {
      const { session, at } = await this.#parse(request, text)
      since = Math.min(since, at ?? since)
      return session
    }
    let { theirs } = conflict
    for (let tries = 0; tries < TRIES; tries++) {
      const decided = await this.#call(key, await read(base), await read(value), await read(theirs))
      const { text, ttl } = serialize(decided, request.sid)
      const written = sealing.seal(key, lifetime.stamped(text, since))
      const bound = lifetime.isLimited ? Math.max(lifetime.bound(ttl, since), 1) : ttl
      // The request has already failed.
      if (this.#left(request) <= 0) return null
      const reply = await new Promise((resolve, reject) => {
        const swapped = (error, found) => (error === null ? resolve(found) : reject(error))
        this.#options.backend.swap(key, theirs, written, bound, request.follow(swapped))
      })
      if (reply === null) return null
      if (typeof reply !== "string") return []
      theirs = reply
    }
    throw conflictError(`it was written ${TRIES} more times meanwhile; the session of the other request is stored`)
  }

  async #parse(request, text) {
    const { lifetime, sealing, store } = this.#options
    const opened = sealing.open(request.key, text)
    try {
      const session = await store.serializer.parse(opened)
      return { session, at: lifetime.take(session) }
    } catch (error) {
      throw decodeError(request.sid, error)
    }
  }

  /** The result of the application's function for these sessions. */
  async #call(key, ...sessions) {
    const { onConflict } = this.#options
    this.#deciding ??= new AsyncLocalStorage()
    let decided
    try {
      decided = await this.#deciding.run({ key, outer: this.#deciding.getStore() }, onConflict, ...sessions)
    } catch (error) {
      throw thrownError('The function of the option "onConflict"', error)
    }
    if (typeof decided === "object" && decided !== null && !Array.isArray(decided)) return decided
    throw argumentError(
      `Option "onConflict" must return a session, got ${kindOf(decided)}; the session of the other request is stored.`,
    )
  }
}

function conflictError(what) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_CONFLICT",
    `Another request has written the session since it was loaded: ${what}.`,
  )
}

module.exports = { Conflicts, LATE_SAVE, conflictError }
