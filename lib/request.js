"use strict"

const { AsyncResource } = require("node:async_hooks")

const { callBack, promised } = require("./callbacks.js")
const { begun, ended, isTraced } = require("./observe/diagnostics.js")
const { currentRound, endRound } = require("./round.js")
const { nextTick } = require("./timers.js")

const MANUAL = { requireManualDestroy: true }

/**
 * One command of a call of a store's method. An AsyncResource, so that the callback runs in its caller's
 * AsyncLocalStorage context; `AsyncResource.bind` would cost a hundred times as much.
 */
class Request extends AsyncResource {
  /**
   * `receive(request, error, reply)` gets an error or null, and the reply. `finish` calls `callback`, the
   * caller's; a step of a call has none.
   */
  constructor(receive, callback, store, sid, key) {
    super("RedisStoreRequest", MANUAL)
    this.receive = receive
    this.callback = callback
    this.round = callback === undefined ? undefined : currentRound().enter()
    this.store = store
    this.sid = sid
    this.key = key
    /** The prefix that the key was made with, if it matters. */
    this.prefix = undefined
    this.bytes = 0
    /** Seals its value and opens its reply in the binding, if needed. */
    this.sealing = undefined
    /** The backend that counts the request while it waits. */
    this.owner = undefined
    /** By the clock of timers.js. Set if another command may follow. */
    this.startedAt = undefined
    /** By the same clock, at or before the time when it was sent. */
    this.sentAt = 0
    /** It follows another command of the same call: it is sent even while the store is closing. */
    this.follows = false
    /** The name of its command, and the message about it if a channel has subscribers. */
    this.command = undefined
    this.trace = undefined
    /** Its operation, for a store that may send it to another backend; or a function that sends it. */
    this.operation = undefined
    /** The value, or what an operation on the sessions of a user is about. */
    this.value = undefined
    this.number = 0
    /** The result, until it is settled. */
    this.error = null
    this.reply = null
  }

  /** The request is about to be sent as `command`, unless it is refused. */
  begin(command) {
    this.command = command
    if (this.trace === undefined && isTraced()) this.trace = begun(command)
  }

  /**
   * Delivers the result in the request's async context. Called once; a callback that throws twice is an
   * uncaught exception.
   */
  settle(error, reply) {
    if (this.callback === undefined) this.emitDestroy()
    else endRound(this.round)
    this.error = error
    this.reply = reply
    try {
      // Without arguments, which would allocate an array for every request.
      this.runInAsyncScope(this.trace === undefined ? receive : receiveTraced, this)
    } catch (thrown) {
      this.runInAsyncScope(nextTick, null, rethrow, thrown)
    }
  }

  /** Ends the call. */
  finish(error, value) {
    this.emitDestroy()
    endRound(this.round)
    this.round.leave()
    callBack(this.callback, error, value)
  }

  /** Fails a request that is not sent. Asynchronous, so that no callback is called before its method has returned. */
  fail(error) {
    nextTick(finish, this, error)
  }

  /** Another command of the same call; `receive(error, reply)` gets its reply. */
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

/** A promise of the reply to the request that is passed to `send`. */
function ask(send) {
  return promised((done) => send(step(done)))
}

module.exports = { Request, ask, step }
