"use strict"

const { connect, openBackend } = require("./backend.js")
const { bridge, bridgeAsync } = require("./callbacks.js")
const { all, clear, ids, length } = require("./listing.js")
const { thrownError } = require("./errors.js")
const { connectionListener } = require("./observe/events.js")
const { OPERATIONS } = require("./operations.js")
const { readOptions } = require("./options/options.js")
const { FOR_EVER, ttlMs } = require("./options/ttl.js")
const { Guard } = require("./races/guard.js")
const { Request, step } = require("./request.js")
const { keyOf, parse, refreshed, serialize } = require("./sessions.js")
const { nextTick, now, setImmediate } = require("./timers.js")
const { destroyHandle, destroyUser, sessionsOf } = require("./users/sessions.js")
const { Users } = require("./users/users.js")

/** The internals of a store. A symbol instead of a private member, so that a Proxy around a store works. */
const INSIDE = Symbol("inside")

/** Callbacks get null only, as with connect-redis 7 and later. */
const RESULTS = { miss: null, written: () => null, touched: () => null, cleared: () => null }

/** The results of connect-redis 3 to 6. */
const LEGACY_RESULTS = {
  miss: undefined,
  written: (reply) => (reply === true ? "OK" : reply),
  touched: (count) => (count > 0 ? "OK" : "EXPIRED"),
  cleared: (count) => count,
}

/**
 * Creates the class RedisStore, which extends the Store of one express-session. With `legacy`, callbacks
 * receive the results of connect-redis 3 to 6: 'OK', numbers of keys, undefined for a miss.
 */
function createRedisStore(Store, { legacy }) {
  /** Only express-session's Store has createSession(). */
  const isHostUnknown = typeof Store.prototype.createSession !== "function"
  const results = legacy ? LEGACY_RESULTS : RESULTS
  const untouched = legacy ? undefined : null
  /** The key of a session that had expired when it was saved, while `destroy` is called for it. */
  let unmarked

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
      const listener = connectionListener(this, read.emitConnectionEvents)
      let users
      const backend = openBackend(read, (event, error) => {
        // A server that is back may have older data.
        if (event === "ready") users?.recent.clear()
        listener(event, error)
      })
      const written = (request, reply) => request.finish(null, results.written(reply))
      const tagSessions = read.tagSessions || isHostUnknown
      const guard = new Guard(
        this,
        backend,
        { ...read, tagSessions },
        (session, sid) => prepared(this, sid, session),
        written,
      )
      const { freshExpires, maxSessionBytes, commandTimeoutMs } = read
      if (read.userOf !== undefined) users = new Users(this, backend, read, guard)
      // Writable, so that a Proxy may show another value.
      Object.defineProperty(this, INSIDE, {
        value: { backend, guard, users, freshExpires, maxSessionBytes, commandTimeoutMs },
        configurable: true,
        writable: true,
      })
      // Not at once: the application may still set the client's database or credentials in this turn.
      setImmediate(connect, backend)
    }

    get native() {
      return this[INSIDE].backend.native
    }

    get status() {
      return this[INSIDE].backend.status
    }

    get(sid, callback) {
      return bridge(callback, legacy, (done) => {
        const request = begin(this, sid, receiveSession, done)
        if (request === undefined) return
        const { backend, freshExpires } = this[INSIDE]
        // An async parse has the rest of the deadline.
        if (this.serializer !== JSON) request.startedAt = now()
        if (freshExpires) getFresh(backend, request)
        else backend.send(OPERATIONS.get, request.key, "", 0, request)
      })
    }

    createSession(req, data) {
      const session = super.createSession(req, data)
      this[INSIDE].guard.loaded(session, this.prefix + req.sessionID, data)
      return session
    }

    set(sid, session, callback) {
      return bridge(callback, legacy, (done) => {
        const { guard, users, maxSessionBytes } = this[INSIDE]
        try {
          const key = keyOf(this, sid)
          const ttl = lifetimeMs(this, key, session)
          if (ttl !== FOR_EVER && ttl <= 0) {
            destroyExpired(this, sid, key, session, done)
          } else {
            const text = serialize(this, session, maxSessionBytes)
            guard.save(done, sid, key, session, text, ttl, users?.writerOf(sid, key, session, ttl))
          }
        } catch (error) {
          fail(done, error)
        }
      })
    }

    touch(sid, session, callback) {
      return bridge(callback, legacy, (done) => {
        if (this.disableTouch || this.disableTTL) {
          return nextTick(finish, new Request(undefined, done), untouched)
        }
        const { guard, users } = this[INSIDE]
        try {
          const key = keyOf(this, sid)
          // A negative number means an expired session here, which is deleted.
          const ttl = guard.bound(Math.max(ttlMs(this, session), 0), key, session)
          const receive = users?.toucherOf(sid, key, session, ttl, receiveTouched) ?? receiveTouched
          guard.touch(done, sid, key, session, ttl, receive)
        } catch (error) {
          fail(done, error)
        }
      })
    }

    destroy(sid, callback) {
      return bridge(callback, legacy, (done) => {
        const request = begin(this, sid, receiveWritten, done)
        if (request === undefined) return
        const { backend, users } = this[INSIDE]
        const { key } = request
        const leavesMarker = key !== unmarked
        const send = () => {
          if (leavesMarker) backend.destroy(key, this.prefix, request)
          else backend.send(OPERATIONS.expire, key, "", 0, request)
        }
        if (users === undefined) send()
        else users.destroy(request, send)
      })
    }

    clear(callback) {
      return bridgeAsync(callback, legacy, async () => results.cleared(await clear(this, this[INSIDE])))
    }

    sessionsOf(user, options, callback) {
      const [about, done] = typeof options === "function" ? [undefined, options] : [options, callback]
      return bridgeAsync(done, legacy, () => sessionsOf(this, this[INSIDE], user, about ?? undefined))
    }

    destroyUser(user, options, callback) {
      const [about, done] = typeof options === "function" ? [undefined, options] : [options, callback]
      return bridgeAsync(done, legacy, () => destroyUser(this, this[INSIDE], user, about ?? undefined))
    }

    destroyHandle(user, handle, callback) {
      return bridgeAsync(callback, legacy, () => destroyHandle(this, this[INSIDE], user, handle))
    }

    length(callback) {
      return bridgeAsync(callback, legacy, () => length(this, this[INSIDE]))
    }

    ids(callback) {
      return bridgeAsync(callback, legacy, () => ids(this, this[INSIDE]))
    }

    all(callback) {
      return bridgeAsync(callback, legacy, () => all(this, this[INSIDE]))
    }

    ping(callback) {
      return bridge(callback, legacy, (done) => {
        this[INSIDE].backend.send(OPERATIONS.ping, this.prefix, "", 0, new Request(receivePong, done))
      })
    }

    stats() {
      return this[INSIDE].backend.stats()
    }

    close(callback) {
      return bridgeAsync(callback, legacy, async () => {
        await this[INSIDE].backend.close()
        return null
      })
    }

    async [Symbol.asyncDispose]() {
      await this.close()
    }
  }

  function receiveSession(request, error, reply) {
    if (error !== null) return request.finish(error, null)
    if (reply === null || reply === "") return request.finish(null, results.miss)
    const { guard, commandTimeoutMs } = request.store[INSIDE]
    parse(request, reply, guard, commandTimeoutMs, receiveParsed)
  }

  /** GET and PTTL in one batch: the cookie of a session that was only touched gets the real expiry. */
  function getFresh(backend, request) {
    request.sentAt = now()
    let waiting = 2
    let text
    let livesMs
    const answered = (error) => {
      if (waiting <= 0) return
      waiting = error === null ? waiting - 1 : 0
      if (error !== null) return request.finish(error, null)
      if (waiting > 0) return
      if (text === null || text === "") return request.finish(null, results.miss)
      const { guard, commandTimeoutMs } = request.store[INSIDE]
      parse(request, text, guard, commandTimeoutMs, (_request, failure, session) => {
        const [problem, fresh] = failure === null ? refreshed(request.sid, session, livesMs) : [failure, null]
        request.finish(problem, fresh)
      })
    }
    backend.send(
      OPERATIONS.get,
      request.key,
      "",
      0,
      step((error, reply) => answered(error, (text = reply))),
    )
    backend.send(
      OPERATIONS.pttl,
      request.key,
      "",
      0,
      step((error, reply) => answered(error, (livesMs = reply))),
    )
  }

  function receiveParsed(request, error, session) {
    request.finish(error, session)
  }

  function receiveWritten(request, error, reply) {
    request.finish(error, error === null ? results.written(reply) : null)
  }

  function receiveTouched(request, error, count) {
    request.finish(error, error === null ? results.touched(count) : null)
  }

  function receivePong(request, error) {
    request.finish(error, error === null ? "PONG" : null)
  }

  /** As connect-redis does, for a session that is saved: by `destroy`, which a subclass or a wrapper may replace. */
  function destroyExpired(store, sid, key, session, done) {
    // A session that expired during its request gets no marker: a later save with a new cookie is written.
    unmarked = session?.cookie?.originalMaxAge <= 0 ? undefined : key
    try {
      store.destroy(sid, (error, value) => done(error ?? null, value))
    } finally {
      unmarked = undefined
    }
  }

  /** A request about one session. If the id is not valid, the call fails and the result is undefined. */
  function begin(store, sid, receive, done) {
    let key
    try {
      key = keyOf(store, sid)
    } catch (error) {
      return fail(done, error)
    }
    return new Request(receive, done, store, sid, key)
  }

  /** The lifetime of a stored session in milliseconds, or FOR_EVER. */
  function lifetimeMs(store, key, session) {
    const ttl = store.disableTTL ? FOR_EVER : Math.max(ttlMs(store, session), 0)
    return store[INSIDE].guard.bound(ttl, key, session)
  }

  /** The text of the session that a function returned, and its time to live. */
  function prepared(store, sid, session) {
    const ttl = lifetimeMs(store, keyOf(store, sid), session)
    const text = serialize(store, session, store[INSIDE].maxSessionBytes)
    return { text, ttl: ttl === FOR_EVER ? ttl : Math.max(ttl, 1) }
  }

  return RedisStore
}

/** Ends a call with an error of the application's code or of ours. */
function fail(done, error) {
  new Request(undefined, done).fail(thrownError("Code of the application", error))
}

function finish(request, value) {
  request.finish(null, value)
}

module.exports = { createRedisStore }
