"use strict"

const { AsyncResource } = require("node:async_hooks")

const { begun, ended, isTraced } = require("./diagnostics.js")

/**
 * One call of a store's method, from the call to the callback. An AsyncResource, so that the
 * callback runs in its caller's AsyncLocalStorage context: `AsyncResource.bind` would do the same
 * at a hundred times the price.
 */
class Request extends AsyncResource {
  /** `decode(request, reply)` makes of the reply what the caller gets, and calls `callback`. */
  constructor(callback, decode, store, sid) {
    super("RedisStoreRequest")
    this.callback = callback
    this.decode = decode
    this.store = store
    this.sid = sid
    this.bytes = 0
    /** By performance.now(), where a second command may follow. */
    this.startedAt = 0
    /** It follows another one of the same call: asked even while the store is closing. */
    this.follows = false
    /** What it is asked as, and the message of that, if somebody listens. */
    this.command = undefined
    this.trace = undefined
  }

  /** It is about to be asked as `command`, unless that is refused. */
  begin(command) {
    this.command = command
    if (this.trace === undefined && isTraced()) this.trace = begun(command)
  }

  /** Called once, in this request's context, with an error or the reply. */
  settle(error, reply) {
    const { trace } = this
    if (trace !== undefined) {
      this.trace = undefined
      return ended(trace, error, () => this.settle(error, reply))
    }
    if (error === null) this.decode(this, reply)
    else this.callback(error, null)
  }
}

const undecoded = (request, reply) => request.callback(null, reply)

/** A promise of the reply to the request that `start` is given. */
function ask(start) {
  return promised((callback) => start(new Request(callback, undecoded)))
}

/** A promise of what `start` calls back with. */
function promised(start) {
  return new Promise((resolve, reject) => {
    start((error, value) => {
      if (error) reject(error)
      else resolve(value)
    })
  })
}

module.exports = { Request, ask, promised }
