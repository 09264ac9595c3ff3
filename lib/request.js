"use strict"

const { AsyncResource } = require("node:async_hooks")

const { callBack, promised } = require("./callbacks.js")
const { begun, ended, isTraced } = require("./observe/diagnostics.js")
const { nextTick } = require("./timers.js")

const MANUAL = { requireManualDestroy: true }

/**
 * One command of a call of a store's method. An AsyncResource, so that the callback runs in its
 * caller's AsyncLocalStorage context: `AsyncResource.bind` would do the same at a hundred times the price.
 */
class Request extends AsyncResource {
  /**
   * `receive(request, error, reply)` goes on with what came: an error or null, and the reply. `callback`
   * is the caller's, which `finish` calls; one that is a step of a call has none.
   */
  constructor(receive, callback, store, sid, key) {
    super("RedisStoreRequest", MANUAL)
    this.receive = receive
    this.callback = callback
    this.store = store
    this.sid = sid
    this.key = key
    this.bytes = 0
    /** By what its value is sealed and its reply opened on the way, if it is. */
    this.sealing = undefined
    /** Whom it is counted for while it waits. */
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
    /** What came, until it is settled. */
    this.error = null
    this.reply = null
  }

  /** It is about to be asked as `command`, unless that is refused. */
  begin(command) {
    this.command = command
    if (this.trace === undefined && isTraced()) this.trace = begun(command)
  }

  /** What came for it, in its context. Called once; what its callback throws twice is uncaught. */
  settle(error, reply) {
    if (this.callback === undefined) this.emitDestroy()
    try {
      if (this.trace === undefined) this.runInAsyncScope(this.receive, null, this, error, reply)
      else this.runInAsyncScope(settleTraced, null, this, error, reply)
    } catch (thrown) {
      this.runInAsyncScope(nextTick, null, rethrow, thrown)
    }
  }

  /** The call has come to its end. */
  finish(error, value) {
    this.emitDestroy()
    callBack(this.callback, error, value)
  }

  /** It is never asked. Not at once: no callback is called before its method has returned. */
  fail(error) {
    nextTick(finish, this, error)
  }

  /** A further command of the same call, which goes on with `receive(error, reply)`. */
  follow(receive) {
    const next = this.runInAsyncScope(step, null, receive)
    next.sid = this.sid
    next.follows = true
    return next
  }
}

function settleTraced(request, error, reply) {
  const { trace } = request
  request.trace = undefined
  ended(trace, error, () => request.receive(request, error, reply))
}

function finish(request, error) {
  request.finish(error, null)
}

function rethrow(thrown) {
  throw thrown
}

/** A command that is no call of its own: `receive(error, reply)` goes on. */
function step(receive) {
  return new Request((_request, error, reply) => receive(error, reply))
}

/** A promise of the reply to the request that `send` is given. */
function ask(send) {
  return promised((done) => send(step(done)))
}

module.exports = { Request, ask, step }
