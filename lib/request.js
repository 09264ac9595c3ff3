"use strict"

const { AsyncResource } = require("node:async_hooks")

const { callBack, promised } = require("./callbacks.js")
const { begun, ended, isTraced } = require("./observe/diagnostics.js")
const { currentRound, endRound } = require("./round.js")
const { nextTick } = require("./timers.js")

const MANUAL = { requireManualDestroy: true }

/**
 * One command of a call of a store's method. An AsyncResource, so that the callback runs in its
 * caller's AsyncLocalStorage context: `AsyncResource.bind` would do the same at a hundred times the price.
 */
class Request extends AsyncResource {
  /**
   * `receive(request, error, reply)` gets an error or null, and the reply. `callback` is the caller's, which
   * `finish` calls; a step of a call has none.
   */
  constructor(receive, callback, store, sid, key) {
    super("RedisStoreRequest", MANUAL)
    this.receive = receive
    this.callback = callback
    this.round = callback === undefined ? undefined : currentRound().enter()
    this.store = store
    this.sid = sid
    this.key = key
    this.bytes = 0
    /** What seals its value and opens its reply on the way, if that is needed. */
    this.sealing = undefined
    /** The backend that counts it while it waits. */
    this.owner = undefined
    /** By the clock of timers.js, where another command may follow. */
    this.startedAt = 0
    /** By the same clock, no later than it was sent. */
    this.sentAt = 0
    /** It follows another one of the same call: asked even while the store is closing. */
    this.follows = false
    /** The name of its command, and the message about it if a channel has subscribers. */
    this.command = undefined
    this.trace = undefined
    /** What it asks, for a store that may ask elsewhere; or a function that asks it. */
    this.operation = undefined
    this.operands = undefined
    this.value = undefined
    this.number = 0
    this.again = undefined
    this.isTakenBack = false
    /** The result, until it is settled. */
    this.error = null
    this.reply = null
  }

  /** It is about to be asked as `command`, unless that is refused. */
  begin(command) {
    this.command = command
    if (this.trace === undefined && isTraced()) this.trace = begun(command)
  }

  /** Passes the result on, in the request's context. Called once; a callback that throws twice is uncaught. */
  settle(error, reply) {
    if (this.callback === undefined) this.emitDestroy()
    else endRound(this.round)
    this.error = error
    this.reply = reply
    try {
      // Without arguments, as those would become an array for every request.
      this.runInAsyncScope(this.trace === undefined ? receive : receiveTraced, this)
    } catch (thrown) {
      this.runInAsyncScope(nextTick, null, rethrow, thrown)
    }
  }

  /** The call has come to its end. */
  finish(error, value) {
    this.emitDestroy()
    endRound(this.round)
    this.round.leave()
    callBack(this.callback, error, value)
  }

  /** It is never asked. Not at once: no callback is called before its method has returned. */
  fail(error) {
    nextTick(finish, this, error)
  }

  /** A further command of the same call; `receive(error, reply)` gets its reply. */
  follow(receive) {
    const next = this.runInAsyncScope(step, null, receive)
    next.sid = this.sid
    next.sealing = this.sealing
    next.follows = true
    return next
  }
}

function receive() {
  const { error, reply } = this
  this.reply = null
  this.receive(this, error, reply)
}

function receiveTraced() {
  const { trace, error } = this
  this.trace = undefined
  ended(trace, error, () => receive.call(this))
}

function finish(request, error) {
  request.finish(error, null)
}

function rethrow(thrown) {
  throw thrown
}

/** A command that is a step of a call; `receive(error, reply)` gets its reply. */
function step(receive) {
  return new Request((_request, error, reply) => receive(error, reply))
}

/** A promise of the reply to the request that `send` is given. */
function ask(send) {
  return promised((done) => send(step(done)))
}

module.exports = { Request, ask, step }
