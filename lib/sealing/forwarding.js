"use strict"

const { Request } = require("../request.js")

/** Before what is stored under an id while it is being moved: src/sealing/mod.rs opens it as if it were not there. */
const MOVING = "~1m."

/** A backend in front of another one. */
class Forwarding {
  to

  constructor(backend) {
    this.to = backend
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
}

/** Lets `go(reply, settle)` go on with a reply of `request`, if it returns anything but false. */
function intercept(request, go) {
  const settle = request.settle.bind(request)
  request.settle = (error, reply) => {
    request.settle = settle
    if (error !== null || go(reply, settle) === false) settle(error, reply)
  }
}

/** A command of the same call, which is not about a session by its id. */
function follow(request, receive) {
  const next = request.runInAsyncScope(() => new Request((_own, error, reply) => receive(error, reply)))
  next.follows = true
  next.startedAt = request.startedAt
  next.sealing = request.sealing
  return next
}

/** A marker's value, or that of a session that was moved, is empty. */
function isMiss(reply) {
  return reply === null || reply === ""
}

module.exports = { Forwarding, MOVING, follow, intercept, isMiss }
