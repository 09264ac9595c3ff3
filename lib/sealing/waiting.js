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
  /** In the order of the calls, what runs them, and which key each is about; undefined is all keys. */
  #held = new Map()
  /** Units of text that they hold. */
  #units = 0
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

  /** Whether anything about `key` waits; about any key, if that is undefined. */
  has(key) {
    if (key === undefined) return this.#held.size > 0
    for (const other of this.#held.values()) if (other === undefined || other === key) return true
    return false
  }

  /** Calls `run(done)` once the keys are there. All of it has the time of one request. */
  hold(done, run, { key, units = 0 } = {}) {
    const { commandTimeoutMs, maxPending, maxPendingBytes } = this.#limits
    const request = new Request(undefined, done)
    const finish = (error, value) => request.runInAsyncScope(request.finish, request, error, value)
    if (this.#held.size >= maxPending) return nextTick(finish, fullError(maxPending, "maxPending"), null)
    if (this.#units + units > maxPendingBytes) {
      return nextTick(finish, fullError(`${maxPendingBytes} bytes of`, "maxPendingBytes"), null)
    }
    const late = () => this.#lateError()
    const letGo = () => {
      if (this.#held.delete(begin)) this.#units -= units
    }
    const settle = withDeadline(commandTimeoutMs, late, (error, value) => {
      letGo()
      this.#rest()
      nextTick(finish, error, value)
    })
    const begin = (error) => {
      letGo()
      if (error !== undefined) settle(error, null)
      else request.runInAsyncScope(run, null, settle)
    }
    this.#held.set(begin, key)
    this.#units += units
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
    for (const begin of [...this.#held.keys()]) begin()
    this.#rest()
  }

  #failed(failure) {
    this.#failure = failure
    // A promise answers once.
    if (typeof this.#source !== "function") for (const begin of [...this.#held.keys()]) begin(this.#lateError())
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

function fullError(held, option) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_QUEUE_FULL",
    `${held} requests wait for the keys of the option "encryption" already (option "${option}").`,
  )
}

module.exports = { Waiting }
