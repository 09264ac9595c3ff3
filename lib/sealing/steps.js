"use strict"

const { OPERATIONS } = require("../operations.js")
const { isRefusal } = require("../races/gone.js")
const { Request } = require("../request.js")
const { now } = require("../timers.js")

/** Further commands of one request. After its deadline none is sent. */
class Steps {
  /** How the backend seals values of the request; undefined where it gets them sealed. */
  sealing
  #to
  #request
  #until
  #late

  /** `late()` makes the error of a command that comes after `until`. */
  constructor(backend, request, until, late) {
    this.sealing = request.sealing
    this.#to = backend
    this.#request = request
    this.#until = until
    this.#late = late
  }

  /** The reply to the command that `send(backend, next)` sends; with `sealing`, the backend seals and opens. */
  ask(send, sealing) {
    const request = this.#request
    return new Promise((resolve, reject) => {
      if (now() >= this.#until) return reject(this.#late())
      const receive = (_own, error, reply) => (error === null ? resolve(reply) : reject(error))
      const next = request.runInAsyncScope(() => new Request(receive))
      next.follows = true
      next.startedAt = request.startedAt
      next.sealing = sealing
      send(this.#to, next)
    })
  }

  send(operation, key, value = "", number = 0, sealing = undefined) {
    return this.ask((to, next) => to.send(operation, key, value, number, next), sealing)
  }

  /** What is stored. */
  get(key) {
    return this.send(OPERATIONS.get, key)
  }

  pttl(key) {
    return this.send(OPERATIONS.pttl, key)
  }

  async has(key) {
    return (await this.pttl(key)) !== -2
  }

  expire(key, ms) {
    return this.send(OPERATIONS.expire, key, "", ms)
  }

  byUser(operation, about, sealing) {
    return this.ask((to, next) => to.byUser(operation, about, next), sealing)
  }

  /**
   * Writes `value` over `base`, to live for `ttl` or, without one, as long as before: true. Else null if there is
   * nothing, or what is there instead; undefined where nothing can be compared.
   */
  swap(key, base, value, ttl) {
    return this.#compared(key, (to, next) => {
      if (ttl === undefined) to.rewrite(key, base, value, next)
      else to.swap(key, base, value, ttl, next)
    })
  }

  /** Removes `base`: true or null. Else what is there instead. */
  async remove(key, base) {
    const reply = await this.#compared(key, (to, next) => to.remove(key, base, next))
    if (reply !== undefined) return reply
    await this.expire(key, 0)
    return true
  }

  async #compared(key, send) {
    let reply
    try {
      reply = await this.ask(send)
    } catch (error) {
      if (error.code === "ERR_REDIS_STORE_OPTIONS" || isRefusal(error)) return undefined
      // Its reply was lost, and others have written since.
      if (error.code !== "ERR_REDIS_STORE_CONFLICT") throw error
      reply = false
    }
    // A client without scripts has removed it.
    if (typeof reply === "number") return true
    return reply === false ? this.get(key) : reply
  }
}

module.exports = { Steps }
