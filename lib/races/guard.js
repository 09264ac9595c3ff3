"use strict"

const { sidHash, timeoutError } = require("../errors.js")
const { OPERATIONS } = require("../operations.js")
const { Request } = require("../request.js")
const { HASH_UNITS } = require("../sealing/hash.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { Conflicts, LATE_SAVE, conflictError } = require("./conflict.js")
const { DROPPED, Gone } = require("./gone.js")
const { Lifetime } = require("./lifetime.js")
const { createMarks } = require("./mark.js")
const { Tag } = require("./tag.js")

const LATE_TOUCH = "Redis did not answer"

/**
 * Tracks the sessions that requests work on, for as long as their objects live: when the store loaded or saved
 * each, under which key and as which text, and when it was created. This decides how a session is saved: a
 * stored session is written only over the text that was stored.
 */
class Guard {
  /** How the backend seals and opens; undefined where what is stored matters, as it is sealed and opened here. */
  sealing
  #store
  #backend
  #onConflict
  #onDestroyed
  #tagSessions
  #lifetime
  #commandTimeoutMs
  #done
  #conflicts
  #gone
  /** Whether the text of a loaded session is needed later. */
  #keepsText
  #sealing
  #hashIds
  /** The state of each session. */
  #known = new WeakMap()
  #marks = createMarks()

  /** `done(request, reply)` ends a save that was written. */
  constructor(store, backend, options, serialize, done) {
    const { onConflict, onDestroyed, tagSessions, maxLifetime, commandTimeoutMs, sealing, hashIds } = options
    this.#store = store
    this.#backend = backend
    this.#onConflict = onConflict
    this.#onDestroyed = onDestroyed
    this.#tagSessions = tagSessions
    this.#lifetime = new Lifetime(store, maxLifetime)
    this.#keepsText = onConflict !== "overwrite" || this.#lifetime.isLimited
    this.#commandTimeoutMs = commandTimeoutMs
    this.#sealing = sealing
    sealing.whenStarted(() => {
      if (!this.#keepsText) this.sealing = sealing
    })
    this.#hashIds = hashIds
    this.#done = done
    this.#conflicts = new Conflicts({
      store,
      backend,
      onConflict,
      lifetime: this.#lifetime,
      sealing,
      commandTimeoutMs,
      serialize,
      tell: (kind, sid, paths) => this.#tell(kind, sid, paths),
    })
    this.#gone = new Gone(
      options,
      (request, send, then) => this.#follow(request, LATE_SAVE, send, then),
      (request) => this.#tell("destroyed", request.sid),
    )
  }

  /** The session text of the value `stored` of `key`. */
  opened(key, stored) {
    return this.#sealing.open(key, stored)
  }

  /** The value to store for the session `text`. */
  #stamped(key, text, created) {
    const stamped = this.#lifetime.stamped(text, created)
    return this.#keepsText ? this.#sealing.seal(key, stamped) : stamped
  }

  /** Records that `data` was read by `request`, as the text `base`. Returns false if its maximum lifetime is over. */
  read(data, request, base) {
    const { sid, prefix, key, sentAt } = request
    const created = this.#keepsText ? this.#lifetime.take(data) : undefined
    const known = { sid, prefix, key, at: sentAt, base: this.#keepsText ? base : undefined, created }
    if (this.#tagSessions) this.#tag(data, known)
    else this.#marks.put(data, known)
    return !this.#lifetime.hasEnded(created)
  }

  /**
   * For frameworks without `createSession`: a save may pass the session itself, a copy, or an object that
   * contains it.
   */
  #tag(data, known) {
    for (const value of Object.values(data)) {
      if (typeof value === "object" && value !== null) this.#known.set(value, known)
    }
    this.#known.set(data, known)
    Tag.put(data, this, known)
  }

  /**
   * express-session has created `session` from `data`. It counts as loaded if this store has read `data` under the
   * key of `sid`, which `keyIn(store, sid)` returns.
   */
  loaded(session, sid, store, data, keyIn) {
    if (session === null || typeof session !== "object") return
    const known = this.#tagSessions ? this.#stateOf(data) : this.#marks.of(data)
    if (known === undefined) return
    const { key, at, base, created } = known
    const { prefix } = store
    if (isOf(known, sid, prefix) || key === keyIn(store, sid)) {
      this.#known.set(session, { sid, prefix, key, at, base, created })
    }
  }

  /** What is known of `session`, if it is that of `key`, which is that of `sid` under `prefix`. */
  #knownOf(key, session, sid, prefix) {
    const known = this.#stateOf(session)
    if (known === undefined) return undefined
    return isOf(known, sid, prefix) || known.key === key ? known : undefined
  }

  #stateOf(session) {
    if (session === null || typeof session !== "object") return undefined
    return this.#known.get(session) ?? (this.#tagSessions ? this.#knownByTag(session) : undefined)
  }

  #knownByTag(session) {
    const known = Tag.of(session, this)
    if (known !== undefined) return known
    for (const value of Object.values(session)) {
      const within = typeof value === "object" && value !== null ? this.#known.get(value) : undefined
      if (within !== undefined) return within
    }
    return undefined
  }

  /** Limits `ttl` to the rest of the session's maximum lifetime. */
  bound(ttl, key, session) {
    if (!this.#lifetime.isLimited) return ttl
    return this.#lifetime.bound(ttl, this.#knownOf(key, session)?.created)
  }

  /** Saves `session`, serialized as `text`, and calls `callback`; by `writer` instead of the backend, if given. */
  save(callback, sid, prefix, key, session, text, ttl, writer = this.#backend) {
    const known = this.#knownOf(key, session, sid, prefix)
    if (this.#onConflict === "merge") this.#lifetime.demandJson("onConflict", text)
    if (this.#lifetime.isLimited) this.#lifetime.demandJson("maxLifetime", text)
    if (known === undefined) return this.#saveUnknown(callback, sid, key, session, text, ttl, writer)
    const created = known.created ?? Date.now()
    const value = this.#stamped(key, text, created)
    known.created = created
    const { base } = known
    if (this.#onConflict !== "overwrite" && base !== undefined) {
      return this.#swap(callback, sid, key, known, { base, value, ttl, created, writer })
    }
    const received = (own, error, reply) => {
      if (error !== null) own.finish(error, null)
      else if (reply === null) this.#restore(own, known, value, ttl)
      else this.#written(own, known, reply)
    }
    const request = this.#request(received, callback, sid, key)
    writer.send(this.#onDestroyed === "save" ? OPERATIONS.set : OPERATIONS.replace, key, value, ttl, request)
  }

  #request(receive, callback, sid, key) {
    const request = new Request(receive, callback, this.#store, sid, key)
    request.sealing = this.sealing
    return request
  }

  /** Records that the session existed when the request was made. */
  #written(request, known, reply) {
    known.at = request.sentAt
    this.#done(request, reply)
  }

  /** Only a session of a request is tracked from then on; any other object is written at every set. */
  #saveUnknown(callback, sid, key, session, text, ttl, writer) {
    // Evaluated before the request is sent: a getter may throw, and no application code may run when the reply
    // comes.
    const isOfRequest = typeof session?.req === "object" || (this.#tagSessions && isInstance(session))
    const save = (created, value) => (own, error, reply) => {
      if (error !== null) return own.finish(error, null)
      if (reply === DROPPED) return this.#gone.drop(own)
      if (isOfRequest) this.#stored(session, key, value, created, own.sentAt)
      this.#done(own, reply)
    }
    if (!this.#lifetime.isLimited || typeof session?.req === "object") {
      const created = Date.now()
      const value = this.#stamped(key, text, created)
      return writer.send(OPERATIONS.set, key, value, ttl, this.#request(save(created, value), callback, sid, key))
    }
    this.#saveRebuilt(callback, sid, key, text, ttl, save, writer)
  }

  /**
   * A framework may have rebuilt a stored session, for example through JSON. The store reads its creation time
   * from Redis.
   */
  #saveRebuilt(callback, sid, key, text, ttl, save, writer) {
    const received = (own, error, stored) => {
      if (error !== null) return own.finish(error, null)
      let created
      let value
      try {
        // One that does not open is not written over: its lifetime would start again.
        created = this.#lifetime.createdOf(stored === null ? null : this.#sealing.open(key, stored)) ?? Date.now()
        value = this.#stamped(key, text, created)
      } catch (failure) {
        return own.finish(failure, null)
      }
      const bound = this.#lifetime.bound(ttl, created)
      const then = (failure, reply) => save(created, value)(own, failure, reply)
      if (bound > 0) {
        return this.#follow(own, LATE_SAVE, (next) => writer.send(OPERATIONS.set, key, value, bound, next), then)
      }
      const { prefix } = this.#store
      this.#follow(own, LATE_SAVE, (next) => this.#backend.destroy(key, prefix, next), then)
    }
    const request = this.#request(received, callback, sid, key)
    this.#backend.send(OPERATIONS.get, key, "", 0, request)
  }

  #swap(callback, sid, key, known, { base, value, ttl, created, writer }) {
    const failed = (own, error) => {
      if (known.base === value) known.base = base
      if (error.code === "ERR_REDIS_STORE_CONFLICT") this.#tell("refused", own.sid)
      own.finish(error, null)
    }
    const gone = (own) => {
      this.#restore(own, known, value, ttl, {
        found: (theirs) => found(own, theirs),
        failed: (error) => failed(own, error),
      })
    }
    const found = (own, theirs) => {
      if (this.#onConflict === "error") return failed(own, conflictError("it was not saved"))
      const done = (paths) => {
        this.#tell("merged", own.sid, paths)
        this.#written(own, known, true)
      }
      this.#conflicts.settle({ request: own, key, base, value, ttl, created, theirs, failed, gone, done })
    }
    const received = (own, error, reply) => {
      if (error !== null) return failed(own, error)
      if (reply === null) return gone(own)
      if (typeof reply === "string") return found(own, reply)
      this.#written(own, known, reply)
    }
    const request = this.#request(received, callback, sid, key)
    request.startedAt = now()
    // Set now: the next save of this session may not wait for this one, and is based on it.
    known.base = value
    writer.swap(key, base, value, ttl, request)
  }

  /**
   * Extends the life of a session; `receive(request, error, reply)` gets the reply. A session without a
   * creation time gets one.
   */
  touch(callback, sid, key, session, ttl, receive) {
    const known = this.#lifetime.isLimited && ttl > 0 ? this.#knownOf(key, session) : undefined
    if (known?.base !== undefined && known.created === undefined) {
      return this.#touchAndDate(callback, { sid, key, base: known.base }, session, ttl, receive)
    }
    this.#backend.send(OPERATIONS.expire, key, "", ttl, this.#request(receive, callback, sid, key))
  }

  #touchAndDate(callback, { sid, key, base }, session, ttl, receive) {
    const created = Date.now()
    const value = this.#stamped(key, this.#sealing.open(key, base), created)
    const received = (own, error, reply) => {
      // Another request has written the session meanwhile, with its creation time.
      if (typeof reply === "string" || error?.code === "ERR_REDIS_STORE_CONFLICT") {
        const expire = this.#sending(OPERATIONS.expire, key, "", ttl)
        return this.#follow(own, LATE_TOUCH, expire, (failure, count) => receive(own, failure, count))
      }
      if (error === null && reply !== null) this.#stored(session, key, value, created, own.sentAt)
      receive(own, error, reply === null ? 0 : 1)
    }
    const request = this.#request(received, callback, sid, key)
    request.startedAt = now()
    this.#backend.swap(key, base, value, ttl, request)
  }

  #stored(session, key, value, created, at) {
    const base = this.#keepsText ? value : undefined
    this.#known.set(session, { sid: undefined, prefix: undefined, key, at, base, created })
  }

  /**
   * The session no longer exists. If another request has written it meanwhile, and that matters,
   * `found(theirs)` continues.
   */
  #restore(request, known, value, ttl, { found, failed = (error) => request.finish(error, null) } = {}) {
    const { key } = request
    const at = now()
    const written = () => {
      known.at = at
      this.#done(request, true)
    }
    if (this.#onDestroyed === "save") {
      const done = (error) => (error === null ? written() : failed(error))
      return this.#follow(request, LATE_SAVE, this.#sending(OPERATIONS.set, key, value, ttl), done)
    }
    const prefix = key.slice(0, key.length - (this.#hashIds ? HASH_UNITS : String(request.sid).length))
    const operation = found === undefined ? OPERATIONS.restore : OPERATIONS.add
    let sealed = value
    try {
      if (!this.#keepsText) sealed = this.#sealing.seal(key, value)
    } catch (error) {
      return failed(error)
    }
    const send = (end, next) => this.#backend.restore(operation, key, prefix, sealed, ttl, end, "", next)
    this.#gone.settle(request, { at: known.at, send, written, found, failed })
  }

  #sending(operation, key, value, ttl) {
    return (next) => this.#backend.send(operation, key, value, ttl, next)
  }

  /** Sends another command of `request`, within the rest of its deadline. `done(error, reply)` gets its reply. */
  #follow(request, what, send, done) {
    const startedAt = request.startedAt ?? request.sentAt
    const late = () => timeoutError(what, this.#commandTimeoutMs)
    const left = Math.floor(startedAt + this.#commandTimeoutMs - now())
    const settle = withDeadline(left, late, (error, reply) => request.runInAsyncScope(done, null, error, reply))
    send(request.follow(settle))
  }

  #tell(kind, sid, paths) {
    const store = this.#store
    if (store.listenerCount("conflict") === 0) return
    const event = { kind, sidHash: sidHash(sid), ...(paths !== undefined && { paths }) }
    // By nextTick, so that an error of a listener does not affect the request.
    nextTick(() => store.emit("conflict", event))
  }
}

/**
 * Whether `known` is surely the state of this session. Without its key: each key is a new text of two parts, which are
 * slow to compare.
 */
function isOf(known, sid, prefix) {
  return sid !== undefined && known.sid === sid && known.prefix === prefix
}

function isInstance(session) {
  if (typeof session !== "object" || session === null) return false
  const prototype = Object.getPrototypeOf(session)
  return prototype !== null && Object.getPrototypeOf(prototype) !== null
}

module.exports = { Guard }
