"use strict"

const { setImmediate: nextTurn } = require("node:timers/promises")

const { connect, openBackend } = require("./backend.js")
const { announce } = require("./diagnostics.js")
const { argumentError, decodeError, encodeError, optionError, shown } = require("./errors.js")
const { Guard } = require("./guard.js")
const { readOptions } = require("./options.js")
const { Request, ask, promised } = require("./request.js")
const { FOR_EVER, ttlMs } = require("./ttl.js")

const MAX_SID_BYTES = 4096
const MGET_KEYS = 500

const BACKEND = Symbol("backend")
const GUARD = Symbol("guard")
const FRESH_EXPIRES = Symbol("freshExpires")
const MAX_SESSION_BYTES = Symbol("maxSessionBytes")

/**
 * Makes the class RedisStore over the Store of one express-session. `legacy` gives callbacks what
 * connect-redis 3 to 6 gave them: 'OK', numbers of keys, undefined for a miss.
 */
function createRedisStore(Store, { legacy }) {
  // Without a callback those majors told nobody of an error: a promise that nobody awaits must not
  // end the process.
  const quiet = (promise) => {
    if (legacy) promise?.catch(() => {})
    return promise
  }
  const oneCommand = (callback, start) => quiet(either(callback, start))
  const manyCommands = (callback, start) => quiet(eventually(callback, start))

  class RedisStore extends Store {
    constructor(options) {
      super()
      const read = readOptions(options)
      this.client = read.client
      this.prefix = read.prefix
      this.scanCount = read.scanCount
      this.serializer = read.serializer
      this.ttl = read.ttl
      this.disableTTL = read.disableTTL
      this.disableTouch = read.disableTouch
      const backend = openBackend(read, connectionListener(this, read.emitConnectionEvents))
      Object.defineProperty(this, BACKEND, { value: backend })
      Object.defineProperty(this, GUARD, { value: new Guard(this, backend, read) })
      Object.defineProperty(this, FRESH_EXPIRES, { value: read.freshExpires })
      Object.defineProperty(this, MAX_SESSION_BYTES, { value: read.maxSessionBytes })
      // Not at once: a client may still be told its database or its credentials in this turn.
      setImmediate(connect, backend)
    }

    get native() {
      return this[BACKEND].native
    }

    get state() {
      return this[BACKEND].state
    }

    get(sid, callback) {
      return oneCommand(callback, (done) => {
        const request = new Request(done, decodeSession, this, sid)
        const key = keyOf(this, sid, request)
        if (key === undefined) return
        if (this[FRESH_EXPIRES]) getFresh(this[BACKEND], key, request)
        else this[BACKEND].send("get", key, "", 0, request)
      })
    }

    createSession(req, data) {
      const session = super.createSession(req, data)
      this[GUARD].loaded(session, req.sessionID, data)
      return session
    }

    set(sid, session, callback) {
      return oneCommand(callback, (done) => {
        const request = new Request(done, this.#done, this, sid)
        const key = keyOf(this, sid, request)
        if (key === undefined) return
        try {
          const ttl = lifetimeMs(this, sid, session)
          if (ttl !== FOR_EVER && ttl <= 0) this[BACKEND].send("del", key, "", 0, request)
          else this[GUARD].save(request, key, session, serialize(this, session), ttl, this.#done)
        } catch (error) {
          fail(request, error)
        }
      })
    }

    [Guard.SERIALIZE](session, sid) {
      const ttl = lifetimeMs(this, sid, session)
      return { text: serialize(this, session), ttl: ttl === FOR_EVER ? ttl : Math.max(ttl, 1) }
    }

    touch(sid, session, callback) {
      return oneCommand(callback, (done) => {
        if (this.disableTouch || this.disableTTL) {
          return process.nextTick(done, null, legacy ? undefined : null)
        }
        const request = new Request(done, decodeTouch, this, sid)
        const key = keyOf(this, sid, request)
        if (key === undefined) return
        try {
          // Below 0 is not for ever here: a session that has expired is deleted.
          const ttl = Math.max(ttlMs(this, session), 0)
          this[GUARD].touch(request, key, session, this[GUARD].bound(ttl, sid, session))
        } catch (error) {
          fail(request, error)
        }
      })
    }

    destroy(sid, callback) {
      return oneCommand(callback, (done) => {
        const request = new Request(done, this.#done, this, sid)
        const key = keyOf(this, sid, request)
        if (key !== undefined) this[BACKEND].send("del", key, "", 0, request)
      })
    }

    clear(callback) {
      return manyCommands(callback, async () => {
        const count = await about(this, "clear")
        return legacy ? count : null
      })
    }

    length(callback) {
      return manyCommands(callback, () => about(this, "length"))
    }

    ids(callback) {
      return manyCommands(callback, () => idsOf(this))
    }

    all(callback) {
      return manyCommands(callback, () => allOf(this))
    }

    ping(callback) {
      return oneCommand(callback, (done) => {
        const pong = (request) => request.callback(null, "PONG")
        this[BACKEND].send("ping", "", "", 0, new Request(done, pong))
      })
    }

    stats() {
      return this[BACKEND].stats()
    }

    close(callback) {
      return manyCommands(callback, async () => {
        await this[BACKEND].close()
        return null
      })
    }

    #done(request, reply) {
      request.callback(null, legacy ? (reply === true ? "OK" : reply) : null)
    }
  }

  function decodeSession(request, reply) {
    if (reply === null || reply === "") return request.callback(null, legacy ? undefined : null)
    parse(request.store, request.sid, reply, request.callback)
  }

  function decodeTouch(request, reply) {
    request.callback(null, legacy ? (reply > 0 ? "OK" : "EXPIRED") : null)
  }

  return RedisStore
}

/** Turns what happens to the connection into events of the store. */
function connectionListener(store, emitConnectionEvents) {
  let told
  const tell = (event) => {
    if (!emitConnectionEvents || event === told) return
    told = event
    store.emit(event)
  }
  return (event, error) => {
    announce(event === "state" ? "circuit" : event, store.state, error)
    if (event === "error") {
      // An 'error' that nobody listens to ends the process.
      if (store.listenerCount("error") > 0) store.emit("error", error)
    } else if (event === "state") {
      if (store.state !== "closed") tell("disconnect")
      else if (told === "disconnect") tell("connect")
    } else {
      store.emit(event)
      if (event === "ready") tell("connect")
    }
  }
}

/** Calls `start` with the callback or, if there is none, with that of the promise it returns. */
function either(callback, start) {
  if (callback == null) return promised(start)
  if (typeof callback !== "function") throw optionError(`The callback must be a function, got ${shown(callback)}.`)
  start(callback)
}

/** The same for what takes many commands, and so begins as a promise. */
function eventually(callback, start) {
  const promise = start()
  if (callback == null) return promise
  if (typeof callback !== "function") throw optionError(`The callback must be a function, got ${shown(callback)}.`)
  // By nextTick: what the callback throws is an uncaught exception, not a rejection.
  promise.then(
    (value) => process.nextTick(callback, null, value),
    (error) => process.nextTick(callback, error, null),
  )
}

function fail(request, error) {
  process.nextTick(request.callback, error, null)
}

/** The key of `sid`; undefined if it cannot be one, which the request is told. */
function keyOf(store, sid, request) {
  if (typeof sid !== "string") {
    fail(request, argumentError(`A session id must be a string, got ${sid === null ? "null" : `a ${typeof sid}`}.`))
  } else if (sid.length * 3 > MAX_SID_BYTES && Buffer.byteLength(sid) > MAX_SID_BYTES) {
    fail(
      request,
      argumentError(`A session id must be at most ${MAX_SID_BYTES} bytes, got ${Buffer.byteLength(sid)} bytes.`),
    )
  } else {
    return store.prefix + sid
  }
}

/** How long a session that is stored is to live, in milliseconds, or FOR_EVER. */
function lifetimeMs(store, sid, session) {
  const ttl = store.disableTTL ? FOR_EVER : Math.max(ttlMs(store, session), 0)
  return store[GUARD].bound(ttl, sid, session)
}

function serialize(store, session) {
  let value
  try {
    value = store.serializer.stringify(session)
  } catch (error) {
    throw encodeError("The session could not be serialized; the one stored before is untouched.", error)
  }
  if (typeof value !== "string" || value === "") {
    throw encodeError(
      `The serializer must make a text of the session, got ${value === "" ? "an empty one" : `a ${typeof value}`}.`,
    )
  }
  const max = store[MAX_SESSION_BYTES]
  if (value.length * 3 > max && Buffer.byteLength(value) > max) {
    throw encodeError(
      `A serialized session must be at most ${max} bytes (option "maxSessionBytes"), got ${Buffer.byteLength(value)}; the one stored before is untouched.`,
    )
  }
  return value
}

/** GET and PTTL in one batch: a session that was only touched says in its cookie when it expires. */
function getFresh(backend, key, request) {
  const { callback } = request
  let waiting = 2
  let text
  let livesMs
  const failed = (error) => {
    if (waiting <= 0) return
    waiting = 0
    callback(error, null)
  }
  const answered = () => {
    if (--waiting === 0) request.decode(request, text)
  }
  request.callback = (error, session) => {
    if (livesMs > 0 && session?.cookie?.expires) {
      const expires = new Date(Date.now() + livesMs)
      session.cookie.expires = typeof session.cookie.expires === "string" ? expires.toISOString() : expires
    }
    callback(error, session)
  }
  const first = new Request(failed, (_request, reply) => answered((text = reply)))
  const second = new Request(failed, (_request, reply) => answered((livesMs = reply)))
  backend.send("get", key, "", 0, first)
  backend.send("pttl", key, "", 0, second)
}

/** Calls back with the session that `text` holds. */
function parse(store, sid, text, callback) {
  let session
  try {
    session = store.serializer.parse(text)
  } catch (error) {
    return callback(decodeError(sid, error), null)
  }
  if (typeof session?.then === "function") {
    session.then(
      (value) => process.nextTick(deliver, store, sid, text, value, callback),
      (error) => process.nextTick(callback, decodeError(sid, error), null),
    )
    return
  }
  deliver(store, sid, text, session, callback)
}

function deliver(store, sid, text, session, callback) {
  if (typeof session !== "object") return callback(decodeError(sid), null)
  if (session === null || store[GUARD].read(session, text)) return callback(null, session)
  // It has outlived its lifetime, which may have been shortened since it was written. Whether it is
  // removed or not, it will not be got any more.
  store.destroy(sid, () => {})
  callback(null, null)
}

/** Asks about all keys of the store. */
function about(store, operation) {
  return ask((request) => store[BACKEND].send(operation, store.prefix, "", store.scanCount, request))
}

/** The ids of all sessions, page by page, so that other work of the event loop comes in between. */
async function idsOf(store) {
  const ids = []
  for (const page of await about(store, "ids")) {
    if (ids.length > 0) await nextTurn()
    for (const sid of JSON.parse(page)) ids.push(sid)
  }
  return ids
}

/** Every session, in steps that let other work of the event loop through. */
async function allOf(store) {
  const ids = await idsOf(store)
  const sessions = []
  for (let at = 0; at < ids.length; at += MGET_KEYS) {
    const some = ids.slice(at, at + MGET_KEYS)
    const keys = some.map((sid) => store.prefix + sid)
    const texts = await ask((request) => store[BACKEND].mget(keys, request))
    for (let i = 0; i < some.length; i++) {
      if (texts[i] === null || texts[i] === "") continue
      const session = await parsed(store, some[i], texts[i])
      if (session !== undefined) sessions.push(session)
    }
  }
  return sessions
}

/** One session of all(), with its id unless it has an `id` of its own; undefined if it is corrupt or none any more. */
async function parsed(store, sid, text) {
  try {
    const session = await promised((callback) => parse(store, sid, text, callback))
    if (session === null) {
      if (text.trim() === "null") throw decodeError(sid)
      // It has outlived its lifetime.
      return undefined
    }
    if (!Object.hasOwn(session, "id")) session.id = sid
    return session
  } catch (error) {
    process.emitWarning(`all() skips a session: ${error.message}`, { code: "CONNECT_REDIS_NATIVE_CORRUPT_SESSION" })
  }
}

module.exports = { createRedisStore }
