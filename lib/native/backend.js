"use strict"

const { RedisStoreError, closedError } = require("../errors.js")
const { Counts } = require("../observe/stats.js")
const { OPERATIONS } = require("../operations.js")
const { inTime, nextTick } = require("../timers.js")
const { connectionOf } = require("./connecting.js")
const { keepAlive, letGo } = require("./keep-alive.js")
const { loadProtocol } = require("./protocol.js")

/** A time to live in swaps: leave it as it is. */
const KEEP = -2

/** The backend of one store over a native connection, which stores over the same client may share. */
class NativeBackend {
  native = true
  #client
  #readSettings
  #limits
  #listener
  #protocol = loadProtocol()
  #batch
  #connecting
  /** Requests that were made before the settings were known, each with the function that sends it. */
  #waiting = []
  #pending = 0
  #counts = new Counts(this.#protocol)
  #closed = false
  #closing
  #ended = false
  /** Called when no request is pending. */
  #idle

  /** Called with a failed request and its error. Returns true if the request is sent to another backend instead. */
  takeBack

  /** `listener` is called with the name of an event and, for "error", the error. */
  constructor(client, readSettings, limits, listener) {
    this.#client = client
    this.#readSettings = readSettings
    this.#limits = limits
    this.#listener = listener
  }

  get pending() {
    return this.#pending
  }

  /** Whether any server that holds keys is connected. */
  get isServing() {
    return this.#batch?.isServing ?? false
  }

  get status() {
    return this.#ended ? "closed" : (this.#batch?.status ?? "connecting")
  }

  /** Connects, unless it is connected. Throws an error if the settings are wrong. */
  connect() {
    if (this.#batch?.isOpen || this.#connecting !== undefined || this.#closed) return
    const settings = this.#readSettings()
    if (!(settings instanceof Promise)) return this.#start(settings)
    const { commandTimeoutMs } = this.#limits
    const late = () => new Error(`no answer within ${commandTimeoutMs} ms`)
    this.#connecting = inTime(settings, commandTimeoutMs, late)
      .then((found) => this.#start(found))
      .catch((error) => this.#refuseWaiting(error))
  }

  #start(settings) {
    this.#batch = connectionOf(this.#client, settings, this.#limits)
    this.#connecting = undefined
    this.#batch.join(this)
    for (const { again } of this.#waiting.splice(0)) {
      again()
      this.release()
    }
    this.#batch.flush()
  }

  #refuseWaiting(cause) {
    this.#connecting = undefined
    const message = "The client's settings could not be read; see the cause."
    const error =
      cause instanceof RedisStoreError ? cause : new RedisStoreError("ERR_REDIS_STORE_CONNECT", message, cause)
    for (const { request } of this.#waiting.splice(0)) {
      this.release()
      this.refuse(request, error)
    }
    this.noticed("error", error)
  }

  send(operation, key, value, number, request) {
    request.begin(operation.command)
    request.owner = this
    if (this.#batch?.isOpen && !this.#closed) this.#batch.send(operation, key, value, number, request)
    else this.#callLater("send", operation, key, value, number, request)
  }

  swap(...args) {
    this.#ask(OPERATIONS.swap, args)
  }

  merge(...args) {
    this.#ask(OPERATIONS.merge, args)
  }

  destroy(...args) {
    this.#ask(OPERATIONS.destroy, args)
  }

  /** `operation` is "restore", "add" or "marker". */
  restore(operation, ...args) {
    this.#ask(operation, [operation, ...args], "restore")
  }

  /** SET of `value`, to live as long as before, if there still is `base`: as for a swap. */
  rewrite(key, base, value, request) {
    this.swap(key, base, value, KEEP, request)
  }

  /** DEL of `key` if it still is `base`: true; else null if there is nothing, or what is there instead. */
  remove(key, base, request) {
    this.swap(key, base, "", 0, request)
  }

  mget(...args) {
    this.#ask(OPERATIONS.mget, args)
  }

  byUser(operation, about, request) {
    request.begin(operation.command)
    request.owner = this
    if (this.#batch?.isOpen && !this.#closed) this.#batch.byUser(operation, about, request)
    else this.#callLater("byUser", operation, about, request)
  }

  /** Calls `method` of the batch with `args`. */
  #ask(operation, args, method = operation.name) {
    const request = args.at(-1)
    request.begin(operation.command)
    request.owner = this
    if (this.#batch?.isOpen && !this.#closed) this.#batch[method](...args)
    else this.#callLater(method, ...args)
  }

  /** Calls a method of the batch once the settings are known, or refuses the request. */
  #callLater(method, ...args) {
    const request = args.at(-1)
    if (this.#closed && (!this.#batch?.isOpen || !request.follows)) return this.refuse(request, closedError())
    try {
      this.connect()
    } catch (error) {
      return this.refuse(request, error)
    }
    const again = () => this.#batch[method](...args)
    if (this.#batch?.isOpen) return again()
    this.keep()
    this.#waiting.push({ request, again })
  }

  /** The same for a request that was not begun here. */
  deny(operation, request, error) {
    request.begin(operation.command)
    this.refuse(request, error)
  }

  /** The native half answered a request. */
  settle(request, error, reply) {
    this.release()
    if (error === null || this.takeBack === undefined || !this.takeBack(request, error)) request.settle(error, reply)
  }

  /** Fails a request that is not passed to the native half. */
  refuse(request, error) {
    this.#counts.ended(request.command, error)
    nextTick(settle, request, error)
  }

  /** Keeps the process alive, and makes close() wait, until release() is called. */
  keep() {
    if (this.#pending++ === 0) keepAlive(this)
  }

  release() {
    if (--this.#pending > 0) return
    letGo(this)
    this.#idle?.()
  }

  /**
   * Called for an event of the connection. An error of a listener is an uncaught exception, and does not affect
   * the answers of this turn.
   */
  noticed(event, error) {
    if (this.#ended) return
    try {
      this.#listener(event, error)
    } catch (thrown) {
      nextTick(rethrow, thrown)
    }
  }

  /** The result of store.stats(). */
  stats() {
    const { batches, numbers } = this.#batch?.stats() ?? { batches: 0 }
    const sharedBy = Math.max(this.#batch?.shared ?? 1, 1)
    return this.#counts.read({ pending: this.#pending, batches, sharedBy }, numbers)
  }

  /** Waits for the pending requests, then leaves the connection. */
  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    if (this.#connecting !== undefined) await this.#connecting
    this.#closed = true
    // A request may send another command after a reply.
    while (this.#pending > 0) await new Promise((resolve) => (this.#idle = resolve))
    await this.#batch?.leave(this)
    this.#ended = true
    this.#listener("end")
  }
}

function settle(request, error) {
  request.settle(error, null)
}

function rethrow(thrown) {
  throw thrown
}

module.exports = { NativeBackend }
