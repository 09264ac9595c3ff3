"use strict"

const { RedisStoreError } = require("./errors.js")
const { OPERATION } = require("./batch.js")
const { ask } = require("./request.js")

const SCAN_COUNT_MIN = 1000
const UNLINK_KEYS = 1000

/**
 * The same few operations as lib/batch.js, spoken through the client's own commands: for clients
 * that have no connection whose settings could be adopted. Commands take a callback.
 */
class Delegate {
  native = false
  #client
  #limits
  #pending = 0
  #closed = false

  constructor(client, limits) {
    this.#client = client
    this.#limits = limits
  }

  connect() {}

  send(operation, key, value, number, request) {
    const client = this.#client
    if (operation === OPERATION.get) this.#run(request, (done) => client.get(key, done))
    else if (operation === OPERATION.expire && number > 0)
      this.#run(request, (done) => client.pexpire(key, number, done))
    else if (operation === OPERATION.del || operation === OPERATION.expire)
      this.#run(request, (done) => client.del(key, done))
    else if (operation === OPERATION.set) {
      const expiry = number < 0 ? [] : ["PX", number]
      this.#run(request, (done) => client.set(key, value, ...expiry, (error, reply) => done(error, reply === "OK")))
    } else this.#answer(operation, key, number, request)
  }

  mget(keys, request) {
    this.#run(request, (done) => this.#client.mget(keys, done))
  }

  async close() {
    this.#closed = true
    return true
  }

  /** Runs one command; its callback or the deadline settles the request, whichever is first. */
  #run(request, command) {
    let open = true
    const settle = (error, reply) => {
      if (!open) return
      open = false
      this.#pending--
      clearTimeout(timer)
      request.runInAsyncScope(request.settle, request, error, reply)
    }
    const { commandTimeoutMs, maxPending } = this.#limits
    const timer = setTimeout(() => {
      settle(
        new RedisStoreError(
          "ERR_REDIS_STORE_TIMEOUT",
          `The client did not answer within ${commandTimeoutMs} ms (option "commandTimeoutMs").`,
        ),
      )
    }, commandTimeoutMs)
    const refusal = this.#closed
      ? new RedisStoreError("ERR_REDIS_STORE_CLOSED", "The store is closed; make a new RedisStore to go on.")
      : this.#pending >= maxPending
        ? new RedisStoreError(
            "ERR_REDIS_STORE_QUEUE_FULL",
            `${maxPending} requests are pending already (option "maxPending").`,
          )
        : undefined
    this.#pending++
    if (refusal !== undefined) return void process.nextTick(settle, refusal, null)
    const done = (error, reply) => settle(error ? serverError(error) : null, reply ?? null)
    try {
      command(done)
    } catch (error) {
      process.nextTick(done, error)
    }
  }

  /** The questions about all keys. */
  #answer(operation, prefix, count, request) {
    const answer = operation === OPERATION.clear ? this.#clear(prefix, count) : this.#keys(prefix, count)
    answer.then(
      (keys) => {
        const reply =
          operation === OPERATION.clear
            ? keys
            : operation === OPERATION.length
              ? keys.length
              : JSON.stringify(keys.map((key) => key.slice(prefix.length)))
        process.nextTick(settleNow, request, null, reply)
      },
      (error) => process.nextTick(settleNow, request, error, null),
    )
  }

  async #keys(prefix, count) {
    const pattern = `${prefix.replace(/[*?[\]\\]/g, "\\$&")}*`
    const found = new Set()
    let cursor = "0"
    do {
      const [next, keys] = await this.#ask((client, done) =>
        client.scan(cursor, "MATCH", pattern, "COUNT", Math.max(count, SCAN_COUNT_MIN), done),
      )
      for (const key of keys) if (key.startsWith(prefix)) found.add(key)
      cursor = String(next)
    } while (cursor !== "0")
    return [...found]
  }

  async #clear(prefix, count) {
    const keys = await this.#keys(prefix, count)
    let removed = 0
    for (let at = 0; at < keys.length; at += UNLINK_KEYS) {
      removed += await this.#ask((client, done) => client.del(keys.slice(at, at + UNLINK_KEYS), done))
    }
    return removed
  }

  #ask(command) {
    return ask((request) => this.#run(request, (done) => command(this.#client, done)))
  }
}

function serverError(error) {
  if (error instanceof RedisStoreError) return error
  return new RedisStoreError("ERR_REDIS_STORE_SERVER", "The client reported an error; see its cause.", error)
}

function settleNow(request, error, reply) {
  request.settle(error, reply)
}

module.exports = { Delegate }
