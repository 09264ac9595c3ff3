"use strict"

const { connect, openBackend } = require("./backend.js")
const { bridge, bridgeAsync, promised } = require("./callbacks.js")
const { all, clear, destroyHandle, ids, length } = require("./listing.js")
const { keyPrefixOf } = require("./clients/delegate.js")
const { thrownError } = require("./errors.js")
const { connectionListener } = require("./observe/events.js")
const { readOptions } = require("./options/options.js")
const { FOR_EVER, ttlMs } = require("./options/ttl.js")
const { Guard } = require("./races/guard.js")
const { Request, step } = require("./request.js")
const { reseal } = require("./sealing/reseal.js")
const { Sealing } = require("./sealing/sealing.js")
const { keyOf, parse, refreshed, serialize } = require("./sessions.js")
const { nextTick, now, setImmediate } = require("./timers.js")

/** What is behind a store: a symbol and no private member, so that a Proxy around a store works. */
const INSIDE = Symbol("inside")

/** What callbacks get: nothing but null, as from connect-redis 7 on. */
const RESULTS = { miss: null, written: () => null, touched: () => null, cleared: () => null }

/** What connect-redis 3 to 6 gave. */
const LEGACY_RESULTS = {
  miss: undefined,
  written: (reply) => (reply === true ? "OK" : reply),
  touched: (count) => (count > 0 ? "OK" : "EXPIRED"),
  cleared: (count) => count,
}

/**
 * Makes the class RedisStore over the Store of one express-session. `legacy` gives callbacks what
 * connect-redis 3 to 6 gave them: 'OK', numbers of keys, undefined for a miss.
 */
function createRedisStore(Store, { legacy }) {
  /** Only express-session's Store makes sessions of what is read. */
  const isHostUnknown = typeof Store.prototype.createSession !== "function"
  const results = legacy ? LEGACY_RESULTS : RESULTS
  const untouched = legacy ? undefined : null

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
      const backend = openBackend(read, connectionListener(this, read.emitConnectionEvents))
      const written = (request, reply) => request.finish(null, results.written(reply))
      const tagSessions = read.tagSessions || isHostUnknown
      const guard = new Guard(
        this,
        backend,
        { ...read, hashIds: hashesIds(read), tagSessions },
        (session, sid) => prepared(this, sid, session),
        written,
      )
      const { freshExpires, maxSessionBytes, commandTimeoutMs } = read
      // To be written, so that a Proxy may show another value.
      Object.defineProperty(this, INSIDE, {
        value: {
          backend,
          guard,
          sealing,
          hashIds: hashesIds(read),
          migrates: read.hashIds === "migrate",
          freshExpires,
          maxSessionBytes,
          commandTimeoutMs,
        },
        configurable: true,
        writable: true,
      })
      // Not at once: a client may still be told its database or its credentials in this turn.
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
      return bridgeReady(this, callback, (done) => {
        const request = begin(this, sid, receiveSession, done)
        if (request === undefined) return
        const { backend, guard, freshExpires } = this[INSIDE]
        request.sealing = guard.sealing
        // A parse that is async has the rest of the time.
        if (this.serializer !== JSON) request.startedAt = now()
        if (freshExpires) getFresh(backend, request)
        else backend.send("get", request.key, "", 0, request)
      })
    }

    createSession(req, data) {
      const session = super.createSession(req, data)
      this[INSIDE].guard.loaded(session, keyIn(this, req.sessionID), data)
      return session
    }

    set(sid, session, callback) {
      return bridge(callback, legacy, (done) => {
        const { backend, guard, sealing, maxSessionBytes } = this[INSIDE]
        try {
          const key = keyIn(this, sid)
          const ttl = lifetimeMs(this, key, session)
          const { prefix } = this
          if (ttl !== FOR_EVER && ttl <= 0) {
            // A session that expired during its request gets no marker: a later save with a new cookie is written.
            const isEnded = session?.cookie?.originalMaxAge <= 0
            sealing.when(done, (then) => {
              const request = new Request(receiveWritten, then, this, sid, key)
              if (isEnded) backend.destroy(key, prefix, request)
              else backend.send("expire", key, "", 0, request)
            })
          } else {
            const text = serialize(this, session, maxSessionBytes)
            sealing.when(done, (then) => guard.save(then, sid, key, session, text, ttl))
          }
        } catch (error) {
          fail(done, error)
        }
      })
    }

    touch(sid, session, callback) {
      return bridgeReady(this, callback, (done) => {
        if (this.disableTouch || this.disableTTL) {
          return nextTick(finish, new Request(undefined, done), untouched)
        }
        const { guard } = this[INSIDE]
        try {
          const key = keyIn(this, sid)
          // Below 0 is not for ever here: a session that has expired is deleted.
          const ttl = Math.max(ttlMs(this, session), 0)
          guard.touch(done, sid, key, session, guard.bound(ttl, key, session), receiveTouched)
        } catch (error) {
          fail(done, error)
        }
      })
    }

    destroy(sid, callback) {
      return bridgeReady(this, callback, (done) => {
        const request = begin(this, sid, receiveWritten, done)
        if (request !== undefined) this[INSIDE].backend.destroy(request.key, this.prefix, request)
      })
    }

    destroyHandle(handle, callback) {
      return bridgeAsync(callback, legacy, async () => destroyHandle(this, this[INSIDE], handle))
    }

    clear(callback) {
      return bridgeAsync(callback, legacy, async () => {
        await ready(this)
        return results.cleared(await clear(this, this[INSIDE]))
      })
    }

    length(callback) {
      return bridgeAsync(callback, legacy, () => length(this, this[INSIDE]))
    }

    ids(callback) {
      return bridgeAsync(callback, legacy, () => ids(this, this[INSIDE]))
    }

    all(callback) {
      return bridgeAsync(callback, legacy, async () => {
        await ready(this)
        return all(this, this[INSIDE])
      })
    }

    ping(callback) {
      return bridge(callback, legacy, (done) => {
        this[INSIDE].backend.send("ping", "", "", 0, new Request(receivePong, done))
      })
    }

    reseal(callback) {
      return bridgeAsync(callback, legacy, async () => {
        await ready(this)
        return reseal(this, this[INSIDE])
      })
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

  function receiveSession(request, error, reply) {
    if (error !== null) return request.finish(error, null)
    if (reply === null || reply === "") return request.finish(null, results.miss)
    const { guard, commandTimeoutMs } = request.store[INSIDE]
    parse(request, reply, guard, commandTimeoutMs, receiveParsed)
  }

  /** GET and PTTL in one batch: a session that was only touched says in its cookie when it expires. */
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
    for (const [operation, receive] of [
      ["get", (error, reply) => answered(error, (text = reply))],
      ["pttl", (error, reply) => answered(error, (livesMs = reply))],
    ]) {
      const part = step(receive)
      part.sid = request.sid
      part.sealing = request.sealing
      backend.send(operation, request.key, "", 0, part)
    }
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

  /** A request about one session; undefined, and failed, if the id cannot be one. */
  function begin(store, sid, receive, done) {
    let key
    try {
      key = keyIn(store, sid)
    } catch (error) {
      return fail(done, error)
    }
    return new Request(receive, done, store, sid, key)
  }

  function keyIn(store, sid) {
    return keyOf(store, sid, store[INSIDE].hashIds)
  }

  /** As `bridge`, once the keys of the option encryption are known. */
  function bridgeReady(store, callback, start) {
    return bridge(callback, legacy, (done) => store[INSIDE].sealing.when(done, start))
  }

  function ready(store) {
    return promised((done) => store[INSIDE].sealing.when(done, (then) => then(null, null)))
  }

  /** How long a session that is stored is to live, in milliseconds, or FOR_EVER. */
  function lifetimeMs(store, key, session) {
    const ttl = store.disableTTL ? FOR_EVER : Math.max(ttlMs(store, session), 0)
    return store[INSIDE].guard.bound(ttl, key, session)
  }

  /** The text of what a function has decided, and how long it lives. */
  function prepared(store, sid, session) {
    const ttl = lifetimeMs(store, keyIn(store, sid), session)
    const text = serialize(store, session, store[INSIDE].maxSessionBytes)
    return { text, ttl: ttl === FOR_EVER ? ttl : Math.max(ttl, 1) }
  }

  return RedisStore
}

/** A call that ends with what application code or ours has thrown. */
function fail(done, error) {
  new Request(undefined, done).fail(thrownError("Code of the application", error))
}

/** Whether keys have hashes of ids: not yet where that is prepared. */
function hashesIds({ hashIds }) {
  return hashIds === true || hashIds === "migrate"
}

function ask(sealing) {
  sealing.ask()
}

function finish(request, value) {
  request.finish(null, value)
}

module.exports = { createRedisStore }
