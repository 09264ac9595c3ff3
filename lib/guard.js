"use strict"

const { performance } = require("node:perf_hooks")

const { RedisStoreError, decodeError, optionError, sidHash } = require("./errors.js")
const { Request } = require("./request.js")
const { FOR_EVER } = require("./ttl.js")

const TRIES = 5

/** Where a stored session says when it was created: beside what the application keeps, which never sees it. */
const CREATED = "~created"

/**
 * What a store knows of the sessions that requests work on, beside and never in them, for as long as
 * they live: which it has loaded or saved, as what text, and when each was created. From that follows
 * how one is saved: a session that was stored is written only over what was stored.
 */
class Guard {
  #store
  #backend
  #onConflict
  #resurrect
  #maxLifetimeMs
  #commandTimeoutMs
  /** Text and creation of what `get` has read, until createSession makes a session of it. */
  #read = new WeakMap()
  /** What is known of sessions. */
  #known = new WeakMap()
  /** By key, who waits to settle a conflict until those before him have. */
  #turns = new Map()
  #jsonSerializers = new WeakSet([JSON])

  constructor(store, backend, { onConflict, resurrect, maxLifetime, commandTimeoutMs }) {
    this.#store = store
    this.#backend = backend
    this.#onConflict = onConflict
    this.#resurrect = resurrect
    this.#maxLifetimeMs = maxLifetime === undefined ? undefined : maxLifetime * 1000
    this.#commandTimeoutMs = commandTimeoutMs
  }

  get #keepsText() {
    return this.#onConflict !== "overwrite" || this.#maxLifetimeMs !== undefined
  }

  /** `data` was read as `text`. False: it has outlived its lifetime. */
  read(data, text) {
    if (!this.#keepsText) return true
    const created = this.#take(data)
    this.#read.set(data, { text, created })
    return created === undefined || Date.now() < created + this.#maxLifetimeMs
  }

  /** Takes out of `data` when it was created, in milliseconds, if that is known and of interest. */
  #take(data) {
    if (this.#maxLifetimeMs === undefined || !Object.hasOwn(data, CREATED)) return undefined
    const created = data[CREATED]
    delete data[CREATED]
    return Number.isFinite(created) ? created : undefined
  }

  /** express-session has made `session` of `data`. */
  loaded(session, sid, data) {
    if (session === null || typeof session !== "object") return
    const { text, created } = this.#read.get(data) ?? {}
    this.#known.set(session, { sid, base: text, created })
  }

  #knownOf(sid, session) {
    const known = session !== null && typeof session === "object" ? this.#known.get(session) : undefined
    return known?.sid === sid ? known : undefined
  }

  /** `ttl`, so that the session does not outlive its lifetime. */
  bound(ttl, sid, session) {
    if (this.#maxLifetimeMs === undefined) return ttl
    return this.#bound(ttl, this.#knownOf(sid, session)?.created)
  }

  #bound(ttl, created = Date.now()) {
    const left = Math.ceil(created + this.#maxLifetimeMs - Date.now())
    return ttl === FOR_EVER ? Math.max(left, 0) : Math.min(ttl, left)
  }

  /** Saves `session`, serialized as `text`. `done(request, reply)` calls back. */
  save(request, key, session, text, ttl, done) {
    const { sid } = request
    const known = this.#knownOf(sid, session)
    const created = known?.created ?? Date.now()
    if (this.#onConflict === "merge") this.#demandJson("onConflict", text)
    const value = this.#stamped(text, created)
    if (this.#onConflict !== "overwrite") request.startedAt = performance.now()
    const base = known?.base
    request.decode = (_request, reply) => {
      if (reply === null) return this.#gone(request, key, value, ttl, done)
      if (typeof reply === "string")
        return this.#conflict({ request, key, base, value, ttl, created, theirs: reply, done })
      // Only a session of a request: any other object is written whenever it is set.
      if (known === undefined && typeof session?.req === "object") this.#stored(session, sid, value, created)
      done(request, reply)
    }
    if (known === undefined) return this.#backend.send("set", key, value, ttl, request)
    known.created = created
    if (this.#onConflict !== "overwrite" && base !== undefined) {
      // At once: another save of this session that does not wait for this one goes on from it.
      known.base = value
      const { callback } = request
      request.callback = (error, result) => {
        if (error !== null && known.base === value) known.base = base
        callback(error, result)
      }
      this.#backend.swap(key, base, value, ttl, request)
    } else if (this.#resurrect) this.#backend.send("set", key, value, ttl, request)
    else this.#backend.send("replace", key, value, ttl, request)
  }

  /** Lets a session live on. One that does not say when it was created is told so now. */
  touch(request, key, session, ttl) {
    const known = this.#knownOf(request.sid, session)
    if (this.#maxLifetimeMs === undefined || known?.base === undefined || known.created !== undefined || ttl <= 0) {
      return this.#backend.send("expire", key, "", ttl, request)
    }
    const created = Date.now()
    const value = this.#stamped(known.base, created)
    const { decode } = request
    request.startedAt = performance.now()
    request.decode = (_request, reply) => {
      // Whoever has written it meanwhile has said when.
      if (typeof reply === "string") return this.#follow(request, "expire", key, "", ttl, decode)
      if (reply !== null) this.#stored(session, request.sid, value, created)
      decode(request, reply === null ? 0 : 1)
    }
    this.#backend.swap(key, known.base, value, ttl, request)
  }

  #stored(session, sid, value, created) {
    this.#known.set(session, { sid, base: this.#keepsText ? value : undefined, created })
  }

  /** What was to be written over is not there any more: a logout stays a logout. */
  #gone(request, key, value, ttl, done) {
    if (this.#resurrect) return this.#follow(request, "set", key, value, ttl, done)
    this.#tell("destroyed", request.sid)
    done(request, null)
  }

  /** Another command of `request`, within what is left of its time. `done(request, reply)` calls back. */
  #follow(request, operation, key, value, ttl, done) {
    const left = this.#left(request)
    let timer
    const finish = (error, reply) => {
      if (timer === undefined) return
      clearTimeout(timer)
      timer = undefined
      if (error === null) done(request, reply)
      else request.callback(error, null)
    }
    const late = () => request.runInAsyncScope(finish, undefined, lateError(this.#commandTimeoutMs))
    timer = setTimeout(late, Math.max(left, 0))
    this.#backend.send(operation, key, value, ttl, this.#following(request, finish))
  }

  /** A request of the same call, which ends with `finish(error, reply)`. */
  #following(request, finish) {
    const next = request.runInAsyncScope(() => new Request(finish, (_request, reply) => finish(null, reply)))
    next.follows = true
    return next
  }

  /** Milliseconds until the deadline of `request`. */
  #left(request) {
    return Math.floor(request.startedAt + this.#commandTimeoutMs - performance.now())
  }

  #conflict(conflict) {
    if (this.#onConflict === "error") {
      this.#tell("refused", conflict.request.sid)
      return conflict.request.settle(conflictError("it was not saved"), null)
    }
    // One after the other: those of one process need not fight for the key.
    const { key } = conflict
    const turns = this.#turns.get(key)
    this.#backend.keep()
    const ended = () => {
      this.#backend.release()
      this.#next(key)
    }
    const start = () => this.#settle(conflict, ended)
    if (turns !== undefined) return void turns.push(start)
    this.#turns.set(key, [])
    start()
  }

  #next(key) {
    const turns = this.#turns.get(key)
    const start = turns.shift()
    if (start === undefined) this.#turns.delete(key)
    else start()
  }

  #settle(conflict, next) {
    const { request, value, done } = conflict
    let settled = false
    let timer
    const finish = (error, paths) => {
      if (settled) return
      settled = true
      clearTimeout(timer)
      // Not at once: what this callback throws is nothing to the next one.
      process.nextTick(next)
      if (error !== null) return request.callback(error, null)
      if (paths === null) return this.#gone(request, conflict.key, value, conflict.ttl, done)
      this.#tell("merged", request.sid, paths)
      done(request, true)
    }
    const left = this.#left(request)
    if (left <= 0) return request.runInAsyncScope(finish, undefined, lateError(this.#commandTimeoutMs))
    if (this.#onConflict === "merge") this.#merge(conflict, left, finish)
    else {
      // The application's function may never answer.
      const late = () => request.runInAsyncScope(finish, undefined, lateError(this.#commandTimeoutMs))
      timer = setTimeout(late, left)
      request.runInAsyncScope(async () => {
        let paths = null
        let failure = null
        try {
          paths = await this.#decide(conflict)
        } catch (error) {
          failure = error ?? new Error('The function of the option "onConflict" failed.')
        }
        process.nextTick(finish, failure, paths)
      })
    }
  }

  #merge({ request, key, base, value, ttl, theirs }, left, finish) {
    const merged = (error, reply) => finish(error, reply === null ? null : JSON.parse(reply))
    this.#backend.merge(key, { base, mine: value, theirs }, ttl, left, this.#following(request, merged))
  }

  /** Lets the application's function decide, and writes what it says. */
  async #decide({ request, key, base, value, created, theirs }) {
    const { serializer } = this.#store
    let since = created
    const parse = async (text) => {
      try {
        const session = await serializer.parse(text)
        since = Math.min(since, this.#take(session) ?? since)
        return session
      } catch (error) {
        throw decodeError(request.sid, error)
      }
    }
    const until = request.startedAt + this.#commandTimeoutMs
    let now = theirs
    for (let tries = 0; tries < TRIES; tries++) {
      const decided = await this.#onConflict(await parse(base), await parse(value), await parse(now))
      const { text, ttl } = this.#store[Guard.SERIALIZE](decided, request.sid)
      const written = this.#stamped(text, since)
      const bound = this.#maxLifetimeMs === undefined ? ttl : Math.max(this.#bound(ttl, since), 1)
      if (performance.now() >= until) throw lateError(this.#commandTimeoutMs)
      const reply = await new Promise((resolve, reject) => {
        const swapped = (error, got) => (error === null ? resolve(got) : reject(error))
        this.#backend.swap(key, now, written, bound, this.#following(request, swapped))
      })
      if (reply === null) return null
      if (typeof reply !== "string") return []
      now = reply
    }
    throw conflictError(`it was written ${TRIES} times more while that was settled; what is stored is theirs`)
  }

  /** `text` with the time at which the session was created, if that matters. */
  #stamped(text, created) {
    if (this.#maxLifetimeMs === undefined) return text
    this.#demandJson("maxLifetime", text)
    const rest = text.slice(text.indexOf("{") + 1).trimStart()
    return `{"${CREATED}":${created}${rest[0] === "}" ? "" : ","}${rest}`
  }

  /** Looks once at what another serializer than JSON makes. */
  #demandJson(option, text) {
    const { serializer } = this.#store
    if (this.#jsonSerializers.has(serializer)) return
    if (!isJsonObject(text)) {
      throw optionError(
        `Option "${option}" needs a serializer that writes JSON objects; set another serializer, or leave the option out.`,
      )
    }
    this.#jsonSerializers.add(serializer)
  }

  #tell(kind, sid, paths) {
    const store = this.#store
    if (store.listenerCount("conflict") === 0) return
    const event = { kind, sidHash: sidHash(sid), ...(paths !== undefined && { paths }) }
    // By nextTick: what a listener throws is nothing to the request.
    process.nextTick(() => store.emit("conflict", event))
  }
}

/** The method by which a store serializes what a function has decided. */
Guard.SERIALIZE = Symbol("serialize")

function isJsonObject(text) {
  try {
    const value = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

function conflictError(what) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_CONFLICT",
    `Others have written the session since it was loaded: ${what}.`,
  )
}

function lateError(commandTimeoutMs) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_TIMEOUT",
    `The conflict of two writes could not be settled within ${commandTimeoutMs} ms (option "commandTimeoutMs").`,
  )
}

module.exports = { Guard }
