"use strict"

const { sidHash, timeoutError } = require("../errors.js")
const { Request } = require("../request.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { Conflicts, LATE_SAVE, conflictError } = require("./conflict.js")
const { Lifetime } = require("./lifetime.js")

const LATE_TOUCH = "Redis did not answer"

/** Its constructor returns the object it was given, so that private members of a subclass stand on that. */
class Carrier {
  constructor(data) {
    return data
  }
}

/**
 * Makes what one store knows of objects that it has read: their key or, where the text matters, also that.
 * It stands beside an object and not in it, as nothing of the application sees private members. A WeakMap
 * does the same at the price of half a JSON.parse for each session.
 */
function createMarks() {
  const unmarkable = new WeakMap()
  return class Mark extends Carrier {
    #mark

    constructor(data, mark) {
      super(data)
      this.#mark = mark
    }

    static put(data, mark) {
      if (#mark in data) {
        data.#mark = mark
        return data
      }
      try {
        return new Mark(data, mark)
      } catch {
        // An engine may keep private members off objects that are not extensible.
        return unmarkable.set(data, mark)
      }
    }

    static of(data) {
      if (typeof data !== "object" || data === null) return undefined
      return #mark in data ? data.#mark : unmarkable.get(data)
    }
  }
}

/**
 * What a store knows of the sessions that requests work on, for as long as they live: which it has
 * loaded or saved, under which key, as what text, and when each was created. From that follows how one
 * is saved: a session that was stored is written only over what was stored.
 */
class Guard {
  #store
  #backend
  #onConflict
  #resurrect
  #lifetime
  #commandTimeoutMs
  #done
  #conflicts
  /** Whether the text that a session was read as matters later. */
  #keepsText
  /** What is known of sessions. */
  #known = new WeakMap()
  #marks = createMarks()

  /** `done(request, reply)` ends a save that was written. */
  constructor(store, backend, { onConflict, resurrect, maxLifetime, commandTimeoutMs }, serialize, done) {
    this.#store = store
    this.#backend = backend
    this.#onConflict = onConflict
    this.#resurrect = resurrect
    this.#lifetime = new Lifetime(store, maxLifetime)
    this.#keepsText = onConflict !== "overwrite" || this.#lifetime.isLimited
    this.#commandTimeoutMs = commandTimeoutMs
    this.#done = done
    this.#conflicts = new Conflicts({
      store,
      backend,
      onConflict,
      lifetime: this.#lifetime,
      commandTimeoutMs,
      serialize,
      tell: (kind, sid, paths) => this.#tell(kind, sid, paths),
    })
  }

  /** `data` was read under `key` as `text`. False: it has outlived its lifetime. */
  read(data, key, text) {
    if (!this.#keepsText) {
      this.#marks.put(data, key)
      return true
    }
    const created = this.#lifetime.take(data)
    this.#marks.put(data, { key, text, created })
    return !this.#lifetime.hasEnded(created)
  }

  /** express-session has made `session` of `data`: it counts as loaded if this store has read that under this key. */
  loaded(session, key, data) {
    if (session === null || typeof session !== "object") return
    const mark = this.#marks.of(data)
    if (mark === undefined || (mark.key ?? mark) !== key) return
    this.#known.set(session, { key, base: mark.text, created: mark.created })
  }

  #knownOf(key, session) {
    const known = session !== null && typeof session === "object" ? this.#known.get(session) : undefined
    return known?.key === key ? known : undefined
  }

  /** `ttl`, so that the session does not outlive its lifetime. */
  bound(ttl, key, session) {
    if (!this.#lifetime.isLimited) return ttl
    return this.#lifetime.bound(ttl, this.#knownOf(key, session)?.created)
  }

  /** Saves `session`, serialized as `text`, for a call that `callback` ends. */
  save(callback, sid, key, session, text, ttl) {
    const known = this.#knownOf(key, session)
    const created = known?.created ?? Date.now()
    if (this.#onConflict === "merge") this.#lifetime.demandJson("onConflict", text)
    const value = this.#lifetime.stamped(text, created)
    if (known === undefined) return this.#saveUnknown(callback, sid, key, session, value, ttl, created)
    known.created = created
    const { base } = known
    if (this.#onConflict !== "overwrite" && base !== undefined) {
      return this.#swap(callback, sid, key, known, { base, value, ttl, created })
    }
    const received = (own, error, reply) => {
      if (error !== null) own.finish(error, null)
      else if (reply === null) this.#gone(own, value, ttl)
      else this.#done(own, reply)
    }
    const request = this.#request(received, callback, sid, key)
    this.#backend.send(this.#resurrect ? "set" : "replace", key, value, ttl, request)
  }

  #request(receive, callback, sid, key) {
    return new Request(receive, callback, this.#store, sid, key)
  }

  /** Only a session of a request is known from then on: any other object is written whenever it is set. */
  #saveUnknown(callback, sid, key, session, value, ttl, created) {
    // Before it is sent: a getter may throw, and nothing of the application is looked at when the reply comes.
    const isOfRequest = typeof session?.req === "object"
    const received = (own, error, reply) => {
      if (error !== null) return own.finish(error, null)
      if (isOfRequest) this.#stored(session, key, value, created)
      this.#done(own, reply)
    }
    const request = this.#request(received, callback, sid, key)
    this.#backend.send("set", key, value, ttl, request)
  }

  #swap(callback, sid, key, known, { base, value, ttl, created }) {
    const failed = (own, error) => {
      if (known.base === value) known.base = base
      if (error.code === "ERR_REDIS_STORE_CONFLICT") this.#tell("refused", own.sid)
      own.finish(error, null)
    }
    const gone = (own) => this.#gone(own, value, ttl)
    const received = (own, error, reply) => {
      if (error !== null) return failed(own, error)
      if (reply === null) return gone(own)
      if (typeof reply !== "string") return this.#done(own, reply)
      if (this.#onConflict === "error") return failed(own, conflictError("it was not saved"))
      const done = (paths) => {
        this.#tell("merged", own.sid, paths)
        this.#done(own, true)
      }
      this.#conflicts.settle({ request: own, key, base, value, ttl, created, theirs: reply, failed, gone, done })
    }
    const request = this.#request(received, callback, sid, key)
    request.startedAt = now()
    // At once: another save of this session that does not wait for this one goes on from it.
    known.base = value
    this.#backend.swap(key, base, value, ttl, request)
  }

  /** Lets a session live on; `receive(request, error, reply)` ends it. One without a time of creation gets it now. */
  touch(callback, sid, key, session, ttl, receive) {
    const known = this.#knownOf(key, session)
    if (!this.#lifetime.isLimited || known?.base === undefined || known.created !== undefined || ttl <= 0) {
      return this.#backend.send("expire", key, "", ttl, this.#request(receive, callback, sid, key))
    }
    const created = Date.now()
    const value = this.#lifetime.stamped(known.base, created)
    const received = (own, error, reply) => {
      // Another request that has written it meanwhile has said when.
      if (typeof reply === "string" || error?.code === "ERR_REDIS_STORE_CONFLICT") {
        return this.#follow(own, LATE_TOUCH, "expire", "", ttl, (failure, count) => receive(own, failure, count))
      }
      if (error === null && reply !== null) this.#stored(session, key, value, created)
      receive(own, error, reply === null ? 0 : 1)
    }
    const request = this.#request(received, callback, sid, key)
    request.startedAt = now()
    this.#backend.swap(key, known.base, value, ttl, request)
  }

  #stored(session, key, value, created) {
    this.#known.set(session, { key, base: this.#keepsText ? value : undefined, created })
  }

  /** What was to be written over is not there any more: a logout stays a logout. */
  #gone(request, value, ttl) {
    if (this.#resurrect) {
      return this.#follow(request, LATE_SAVE, "set", value, ttl, (error, reply) => {
        if (error === null) this.#done(request, reply)
        else request.finish(error, null)
      })
    }
    this.#tell("destroyed", request.sid)
    this.#done(request, null)
  }

  /** Another command of `request`, within what is left of its time. `done(error, reply)` goes on. */
  #follow(request, what, operation, value, ttl, done) {
    const late = () => timeoutError(what, this.#commandTimeoutMs)
    const left = Math.floor(request.startedAt + this.#commandTimeoutMs - now())
    const settle = withDeadline(left, late, (error, reply) => request.runInAsyncScope(done, null, error, reply))
    this.#backend.send(operation, request.key, value, ttl, request.follow(settle))
  }

  #tell(kind, sid, paths) {
    const store = this.#store
    if (store.listenerCount("conflict") === 0) return
    const event = { kind, sidHash: sidHash(sid), ...(paths !== undefined && { paths }) }
    // By nextTick: what a listener throws is nothing to the request.
    nextTick(() => store.emit("conflict", event))
  }
}

module.exports = { Guard }
