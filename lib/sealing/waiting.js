"use strict"

const { RedisStoreError } = require("../errors.js")
const { Request } = require("../request.js")
const { nextTick, setTimeout, withDeadline } = require("../timers.js")

/** Pauses before keys are asked for again. */
const PAUSE_MS = 50
const PAUSE_MAX_MS = 1000

/** Requests that wait for keys that a function or a promise gives: of a key management service, perhaps. */
class Waiting {
  #source
  #start
  #limits
  /** In the order of the calls, what runs them. */
  #held = new Set()
  #asking = false
  #failure
  #pause = PAUSE_MS
  #idle = []

  /** `start(keys)` takes them, or throws. */
  constructor(source, start, limits) {
    this.#source = source
    this.#start = start
    this.#limits = limits
    // A rejection is told to requests.
    if (typeof source !== "function") Promise.resolve(source).catch(() => {})
  }

  /** Calls `run(done)` once the keys are there. All of it has the time of one request. */
  hold(done, run) {
    const { commandTimeoutMs, maxPending } = this.#limits
    const request = new Request(undefined, done)
    const finish = (error, value) => request.runInAsyncScope(request.finish, request, error, value)
    if (this.#held.size >= maxPending) return nextTick(finish, fullError(maxPending), null)
    const late = () => this.#lateError()
    const settle = withDeadline(commandTimeoutMs, late, (error, value) => {
      this.#held.delete(begin)
      this.#rest()
      nextTick(finish, error, value)
    })
    const begin = (error) => {
      this.#held.delete(begin)
      if (error !== undefined) settle(error, null)
      else request.runInAsyncScope(run, null, settle)
    }
    this.#held.add(begin)
    this.ask()
  }

  /** Asks for the keys, unless that is under way. */
  ask() {
    if (this.#asking) return
    this.#asking = true
    const { commandTimeoutMs } = this.#limits
    const late = () => new Error(`no answer within ${commandTimeoutMs} ms`)
    const settle = withDeadline(commandTimeoutMs, late, (error, keys) => this.#answered(error, keys))
    const given = async () => (typeof this.#source === "function" ? this.#source() : this.#source)
    given().then(
      (keys) => nextTick(settle, null, keys),
      (error) => nextTick(settle, error ?? new Error("rejected without a reason"), null),
    )
  }

  #answered(error, keys) {
    try {
      if (error !== null) throw error
      this.#start(keys)
    } catch (failure) {
      return this.#failed(failure)
    }
    this.#asking = false
    for (const begin of [...this.#held]) begin()
    this.#rest()
  }

  #failed(failure) {
    this.#failure = failure
    // A promise answers once.
    if (typeof this.#source !== "function") for (const begin of [...this.#held]) begin(this.#lateError())
    const again = () => {
      this.#asking = false
      if (this.#held.size > 0) this.ask()
    }
    if (this.#held.size === 0) return again()
    setTimeout(again, this.#pause)
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX_MS)
  }

  #rest() {
    if (this.#held.size > 0) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Resolves when nothing waits. */
  settled() {
    return new Promise((resolve) => {
      this.#idle.push(resolve)
      this.#rest()
    })
  }

  #lateError() {
    const { commandTimeoutMs } = this.#limits
    return new RedisStoreError(
      "ERR_REDIS_STORE_TIMEOUT",
      `The request was not answered within ${commandTimeoutMs} ms (option "commandTimeoutMs"); it waited for the keys of the option "encryption"${this.#failure === undefined ? "" : ", see the cause"}.`,
      this.#failure,
    )
  }
}

function fullError(maxPending) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_QUEUE_FULL",
    `${maxPending} requests wait for the keys of the option "encryption" already (option "maxPending").`,
  )
}

module.exports = { Waiting }
