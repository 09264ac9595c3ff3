"use strict"

const { timeoutError } = require("../errors.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { Steps } = require("./steps.js")

const LATE = "The session could not be looked for under both of its keys"

/** A backend in front of another one, for sessions that have two keys. */
class Forwarding {
  to
  #commandTimeoutMs

  constructor(backend, commandTimeoutMs) {
    this.to = backend
    this.#commandTimeoutMs = commandTimeoutMs
  }

  get native() {
    return this.to.native
  }

  get status() {
    return this.to.status
  }

  connect() {
    this.to.connect()
  }

  stats() {
    return this.to.stats()
  }

  close() {
    return this.to.close()
  }

  keep() {
    this.to.keep()
  }

  release() {
    this.to.release()
  }

  mget(...args) {
    this.to.mget(...args)
  }

  swap(...args) {
    this.to.swap(...args)
  }

  merge(...args) {
    this.to.merge(...args)
  }

  restore(...args) {
    this.to.restore(...args)
  }

  rewrite(...args) {
    this.to.rewrite(...args)
  }

  remove(...args) {
    this.to.remove(...args)
  }

  /** What concerns the sessions of a user. */
  byUser(operation, about, request) {
    this.to.byUser(operation, about, request)
  }

  /**
   * Lets `work(reply, steps)` go on with a reply of `request`: it returns undefined, or a promise of the reply that
   * `request` gets instead, within the rest of its time.
   */
  goOn(request, work) {
    const answer = request.settle.bind(request)
    request.settle = (error, reply) => {
      request.settle = answer
      if (error !== null) return answer(error, reply)
      const late = () => timeoutError(LATE, this.#commandTimeoutMs)
      const until = (request.startedAt ?? (request.sentAt || now())) + this.#commandTimeoutMs
      const promise = request.runInAsyncScope(work, null, reply, new Steps(this.to, request, until, late))
      if (promise === undefined) return answer(null, reply)
      this.#within(until, late, promise, answer)
    }
  }

  /** Calls `answer(error, reply)` with the end of `promise`, or at its deadline. close() waits for it, between two commands too. */
  #within(until, late, promise, answer) {
    this.to.keep()
    const settle = withDeadline(Math.floor(until - now()), late, (error, reply) => {
      answer(error, reply)
      this.to.release()
    })
    promise.then(
      (reply) => nextTick(settle, null, reply),
      (error) => nextTick(settle, error, null),
    )
  }
}

module.exports = { Forwarding }
