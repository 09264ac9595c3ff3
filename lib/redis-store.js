"use strict"

const { connect, openBackend } = require("./backend.js")
const { bridge, bridgeAsync, promised } = require("./callbacks.js")
const { all, clear, destroyHandle, ids, length } = require("./listing.js")
const { keyPrefixOf } = require("./clients/keyspace.js")
const { thrownError } = require("./errors.js")
const { connectionListener } = require("./observe/events.js")
const { OPERATIONS } = require("./operations.js")
const { readOptions } = require("./options/options.js")
const { FOR_EVER, ttlMs } = require("./options/ttl.js")
const { Guard } = require("./races/guard.js")
const { Request, step } = require("./request.js")
const { reseal } = require("./sealing/reseal.js")
const { Sealing } = require("./sealing/sealing.js")
const { keyOf, parse, refreshed, serialize } = require("./sessions.js")
const { nextTick, now, setImmediate } = require("./timers.js")
const { destroyOfUser, destroyUser, sessionsOf } = require("./users/sessions.js")
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
      const sealing = new Sealing(read, () => (read.client === undefined ? "" : keyPrefixOf(read.client)))
      read.sealing = sealing
      const listener = connectionListener(this, read.emitConnectionEvents)
      let users
      const backend = openBackend(read, (event, error) => {
        if (event === "ready") users?.recent.connected()
        listener(event, error)
      })
      const written = (request, reply) => request.finish(null, results.written(reply))
      const tagSessions = read.tagSessions || isHostUnknown
      const guard = new Guard(
        this,
        backend,
        { ...read, hashIds: hashesIds(read) === true, tagSessions },
        (session, sid) => prepared(this, sid, session),
        written,
      )
      const { freshExpires, maxSessionBytes, commandTimeoutMs } = read
      if (read.userOf !== undefined) users = new Users(this, backend, read, guard)
      // Writable, so that a Proxy may show another value.
      Object.defineProperty(this, INSIDE, {
        value: {
          backend,
          guard,
          users,
          sealing,
          hashes: hashesIds(read),
          handles: read.hashIds !== false,
          migrates: read.hashIds === "migrate",
          prepares: read.hashIds === "prepare",
          freshExpires,
          maxSessionBytes,
          commandTimeoutMs,
        },
        configurable: true,
        writable: true,
      })
      // Not at once: the application may still set the client's database or credentials in this turn.
      setImmediate(connect, backend)
      if (!sealing.isReady) setImmediate(ask, sealing)
    }

    get native() {
      return this[INSIDE].backend.native
    }

    get status() {
      return this[INSIDE].backend.status
    }

    get(sid, callback) {
      if (!this[INSIDE].sealing.isReady) return later(this, RedisStore.prototype.get, callback, sid)
      return bridge(callback, legacy, startGet, this, sid)
    }

    createSession(req, data) {
      const session = super.createSession(req, data)
      const { sessionID } = req
      this[INSIDE].guard.loaded(session, sessionID, this, data, keyIn)
      return session
    }

    set(sid, session, callback) {
      return bridge(callback, legacy, startSet, this, sid, session)
    }

    touch(sid, session, callback) {
      if (!this[INSIDE].sealing.isReady && (this[INSIDE].migrates || waits(this, sid))) {
        return later(this, RedisStore.prototype.touch, callback, sid, session)
      }
      return bridge(callback, legacy, startTouch, this, sid, session)
    }

    destroy(sid, callback) {
      return bridge(callback, legacy, startDestroy, this, sid, unmarked)
    }

    clear(callback) {
      const work = async () => results.cleared(await clear(this, this[INSIDE]))
      return this[INSIDE].sealing.isHeld()
        ? bridgeAsyncReady(this, callback, work)
        : bridgeAsync(callback, legacy, work)
    }

    sessionsOf(user, options, callback) {
      const [about, done] = typeof options === "function" ? [undefined, options] : [options, callback]
      return bridgeAsyncReady(this, done, () => sessionsOf(this, this[INSIDE], user, about ?? undefined))
    }

    destroyUser(user, options, callback) {
      const [about, done] = typeof options === "function" ? [undefined, options] : [options, callback]
      return bridgeAsyncReady(this, done, () => destroyUser(this, this[INSIDE], user, about ?? undefined))
    }

    /** `(user, handle, callback)`; or `(handle, callback)`, whichever user the session has. */
    destroyHandle(first, ...rest) {
      const isOfUser = rest.length > 0 && rest[0] !== undefined && typeof rest[0] !== "function"
      return bridgeAsyncReady(this, isOfUser ? rest[1] : rest[0], () => {
        const inside = this[INSIDE]
        return isOfUser ? destroyOfUser(this, inside, first, rest[0]) : destroyHandle(this, inside, first)
      })
    }

    length(callback) {
      return bridgeAsync(callback, legacy, () => length(this, this[INSIDE]))
    }

    ids(callback) {
      return bridgeAsync(callback, legacy, () => ids(this, this[INSIDE]))
    }

    all(callback) {
      return bridgeAsyncReady(this, callback, () => all(this, this[INSIDE]))
    }

    ping(callback) {
      return bridge(callback, legacy, startPing, this)
    }

    reseal(callback) {
      return bridgeAsyncReady(this, callback, () => reseal(this, this[INSIDE]))
    }

    stats() {
      return this[INSIDE].backend.stats()
    }

    close(callback) {
      return bridgeAsync(callback, legacy, async () => {
        const { backend, sealing } = this[INSIDE]
        if (!sealing.isReady) await sealing.settled()
        await backend.close()
        return null
      })
    }

    async [Symbol.asyncDispose]() {
      await this.close()
    }
  }

  function startGet(done, store, sid) {
    const request = begin(store, sid, receiveSession, done)
    if (request === undefined) return
    const { backend, guard, freshExpires } = store[INSIDE]
    request.sealing = guard.sealing
    // An async parse has the rest of the deadline.
    if (store.serializer !== JSON) request.startedAt = now()
    if (freshExpires) getFresh(backend, request)
    else backend.send(OPERATIONS.get, request.key, "", 0, request)
  }

  function startSet(done, store, sid, session) {
    const { guard, users, sealing, hashes, maxSessionBytes } = store[INSIDE]
    // Now: the application's functions may change it before the session is saved.
    const { prefix } = store
    try {
      const key = keyOf(store, sid, hashes)
      const ttl = lifetimeMs(store, key, session)
      if (ttl !== FOR_EVER && ttl <= 0) {
        destroyExpired(store, sid, key, session, done)
      } else {
        const text = serialize(store, session, maxSessionBytes)
        const writer = users?.writerOf(sid, key, session, ttl)
        if (sealing.isReady) guard.save(done, sid, prefix, key, session, text, ttl, writer)
        else saveLater(store[INSIDE], done, sid, prefix, key, session, text, ttl, writer)
      }
    } catch (error) {
      fail(done, error)
    }
  }

  function startTouch(done, store, sid, session) {
    if (store.disableTouch || store.disableTTL) return nextTick(finish, new Request(undefined, done), untouched)
    const { guard, users, hashes } = store[INSIDE]
    try {
      const key = keyOf(store, sid, hashes)
      // A negative number means an expired session here, which is deleted.
      const ttl = guard.bound(Math.max(ttlMs(store, session), 0), key, session)
      const receive = users?.toucherOf(sid, key, session, ttl, receiveTouched) ?? receiveTouched
      guard.touch(done, sid, key, session, ttl, receive)
    } catch (error) {
      fail(done, error)
    }
  }

  function startDestroy(done, store, sid, expired) {
    const { sealing } = store[INSIDE]
    if (sealing.isReady || !waits(store, sid)) remove(store, sid, done, expired)
    else hold(store, done, sid, (then) => remove(store, sid, then, expired))
  }

  function startPing(done, store) {
    store[INSIDE].backend.send(OPERATIONS.ping, store.prefix, "", 0, new Request(receivePong, done))
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
    const send = (operation, receive) => {
      const part = step(receive)
      part.sid = request.sid
      part.sealing = request.sealing
      backend.send(operation, request.key, "", 0, part)
    }
    send(OPERATIONS.get, (error, reply) => answered(error, (text = reply)))
    send(OPERATIONS.pttl, (error, reply) => answered(error, (livesMs = reply)))
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

  /** Destroys a session; without a marker if its key is `expired`. */
  function remove(store, sid, done, expired) {
    const request = begin(store, sid, receiveWritten, done)
    if (request === undefined) return
    const { backend, users } = store[INSIDE]
    const { key } = request
    const send = () => {
      if (key === expired) backend.send(OPERATIONS.expire, key, "", 0, request)
      else backend.destroy(key, store.prefix, request)
    }
    if (users === undefined) send()
    else users.destroy(request, send)
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

  /** Saves a serialized session once the keys of the option encryption are known. */
  function saveLater({ guard, sealing }, done, sid, prefix, key, session, text, ttl, writer) {
    const save = (then) => guard.save(then, sid, prefix, key, session, text, ttl, writer)
    sealing.when(done, save, { key, units: key.length + text.length })
  }

  /** A request about one session. If the id is not valid, the call fails and the result is undefined. */
  function begin(store, sid, receive, done) {
    let key
    try {
      key = keyIn(store, sid)
    } catch (error) {
      return fail(done, error)
    }
    const request = new Request(receive, done, store, sid, key)
    request.prefix = store.prefix
    return request
  }

  function keyIn(store, sid) {
    return keyOf(store, sid, store[INSIDE].hashes)
  }

  /** Calls a method about one session once the keys of the option encryption are known. */
  function later(store, method, callback, sid, ...args) {
    return bridge(callback, legacy, (done) => hold(store, done, sid, (then) => method.call(store, sid, ...args, then)))
  }

  /** Calls `run` for a session once the keys are known. */
  function hold(store, done, sid, run) {
    let key
    try {
      key = keyIn(store, sid)
    } catch (error) {
      return fail(done, error)
    }
    store[INSIDE].sealing.when(done, run, { key, units: key.length })
  }

  /** Whether a request that needs no keys must wait: behind another request on its session, or for its user. */
  function waits(store, sid) {
    const { users, sealing } = store[INSIDE]
    if (users !== undefined) return true
    try {
      return sealing.isHeld(keyIn(store, sid))
    } catch {
      // It fails at once.
      return false
    }
  }

  /** As `bridgeAsync`, once the keys are known. */
  function bridgeAsyncReady(store, callback, work) {
    const { sealing } = store[INSIDE]
    if (sealing.isReady) return bridgeAsync(callback, legacy, work)
    const ready = () => promised((done) => sealing.when(done, (then) => then(null, null)))
    return bridgeAsync(callback, legacy, () => ready().then(work))
  }

  /** The lifetime of a stored session in milliseconds, or FOR_EVER. */
  function lifetimeMs(store, key, session) {
    const ttl = store.disableTTL ? FOR_EVER : Math.max(ttlMs(store, session), 0)
    return store[INSIDE].guard.bound(ttl, key, session)
  }

  /** The text of the session that a function returned, and its time to live. */
  function prepared(store, sid, session) {
    const ttl = lifetimeMs(store, keyIn(store, sid), session)
    const text = serialize(store, session, store[INSIDE].maxSessionBytes)
    return { text, ttl: ttl === FOR_EVER ? ttl : Math.max(ttl, 1) }
  }

  return RedisStore
}

/** Ends a call with an error of the application's code or of ours. */
function fail(done, error) {
  new Request(undefined, done).fail(thrownError("Code of the application", error))
}

/** Whether keys have hashes of ids: where that is prepared, only those of ids that look like hashes. */
function hashesIds({ hashIds }) {
  return hashIds === "migrate" || hashIds
}

function ask(sealing) {
  sealing.ask()
}

function finish(request, value) {
  request.finish(null, value)
}

module.exports = { createRedisStore }
