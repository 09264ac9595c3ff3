"use strict"

const { timeoutError } = require("../errors.js")
const { OPERATIONS } = require("../operations.js")
const { DROPPED } = require("../races/gone.js")
const { nextTick, now, withDeadline } = require("../timers.js")

const LATE = "The session could not be added to the index of its user"

/**
 * Writes one session of a user in place of the backend, and its index entry before the save is answered. `send`
 * and `swap` are those of a backend, for the commands that save a session.
 */
class Writer {
  // What the operations `save` and `signIn` read. An object literal for each command would do, but once some objects of
  // a literal have lived long, V8 puts all of them into its old space, where they keep their texts until a full
  // garbage collection.
  key
  value = ""
  ttl
  index
  handle
  /** Both in one text. */
  place
  text = ""
  limit
  prefix
  ignoresMarkers
  byTurns = false
  #users
  #about
  #session
  /** The lifetime of the entry. That of the session may be shorter: see `maxLifetime`. */
  #lifeMs
  /** The former user of the session, as far as this process knows. */
  #before
  /** There are more entries than the limit permits. */
  #over = false
  #tries = 0
  /** The receiver of the request. */
  #receive

  /** `about` is an entry of entryOf(). */
  constructor(users, key, about, session, ttl, before) {
    this.key = key
    this.ttl = ttl
    this.index = about.index
    this.handle = about.handle
    this.place = about.place
    this.#users = users
    this.#about = about
    this.#session = session
    this.#lifeMs = ttl
    this.#before = before
  }

  /** Whether the entry need not be written again. */
  #isFresh(ttl) {
    return this.#before === this.#about && this.#users.recent.isFresh(this.#about, ttl)
  }

  /** SET, or SET XX. The request is answered as a backend does. */
  send(operation, key, value, ttl, request) {
    this.value = value
    this.ttl = ttl
    if (this.#isFresh(ttl)) this.#saveEntered(operation, request)
    else if (operation === OPERATIONS.set) this.#signInAtOnce(request)
    else this.#enterAndSave(operation, request)
  }

  /** The entry is there, as far as is known. */
  #saveEntered(operation, request) {
    this.#receive = request.receive
    const isPlain = operation === OPERATIONS.set
    request.receive = (own, error, reply) => this.#saved(isPlain, own, error, reply)
    this.#users.backend.byUser(OPERATIONS.save, this, request)
  }

  #saved(isPlain, own, error, reply) {
    const receive = this.#receive
    if (error !== null || reply === true) return receive(own, error, reply)
    own.receive = receive
    if (reply === 0) this.#entered(own, (failure) => receive(own, failure, failure === null ? true : null), "a")
    else if (isPlain) this.#signIn(own, receive)
    else this.#entered(own, (failure) => receive(own, failure, null))
  }

  #signInAtOnce(request) {
    const { receive } = request
    request.receive = (own, error, count) => {
      own.receive = receive
      this.#signedIn(own.sentAt, own, receive, error, count)
    }
    this.#prepare()
    this.#users.backend.byUser(OPERATIONS.signIn, this, request)
  }

  #enterAndSave(operation, request) {
    const { backend } = this.#users
    const { key, value, ttl } = this
    const { receive } = request
    request.startedAt = now()
    this.#entered(request, (failure) => {
      if (failure !== null) return receive(request, failure, null)
      request.sentAt = now()
      this.#follow(
        request,
        (next) => backend.send(operation, key, value, ttl, next),
        (error, reply) => this.#written(request, receive, error, reply),
      )
    })
  }

  /** A comparing save; the entry is checked in parallel. */
  swap(key, base, value, ttl, request) {
    const { backend } = this.#users
    const { receive } = request
    const swap = (next) => backend.swap(key, base, value, ttl, next)
    if (!this.#isFresh(ttl)) {
      return this.#entered(request, (failure) => {
        if (failure !== null) return receive(request, failure, null)
        request.sentAt = now()
        this.#follow(request, swap, (error, reply) => this.#written(request, receive, error, reply))
      })
    }
    let waiting = 2
    let isListed
    let swapped
    const answered = () => {
      if (--waiting > 0) return
      const [error, reply] = swapped
      if (error !== null || isListed) return receive(request, error, reply)
      this.#entered(request, (failure) => receive(request, failure, failure === null ? reply : null), "a")
    }
    request.receive = (own, error, reply) => {
      own.receive = receive
      swapped = [error, reply]
      answered()
    }
    const look = (next) => backend.byUser(OPERATIONS.entries, this.#about, next)
    this.#follow(request, look, (error, found) => answered((isListed = error === null && found.length > 1)))
    swap(request)
  }

  /** Writes the entry and the session, in one step or in this order. */
  #signIn(request, receive) {
    const at = now()
    request.sentAt = at
    try {
      this.#prepare()
    } catch (error) {
      return receive(request, error, null)
    }
    this.#follow(
      request,
      (next) => this.#users.backend.byUser(OPERATIONS.signIn, this, next),
      (error, count) => this.#signedIn(at, request, receive, error, count),
    )
  }

  /** Sets what only a sign-in needs. */
  #prepare() {
    const { limit, prefix, ignoresMarkers } = this.#users
    this.text = this.#entryText()
    this.limit = limit.argument
    this.prefix = prefix
    this.ignoresMarkers = ignoresMarkers
  }

  #signedIn(at, request, receive, error, count) {
    // A proxy in front of a cluster, where a script may name only one of the two keys.
    if (error?.cause?.code === "CROSSSLOT" && !this.byTurns) {
      this.byTurns = true
      return this.#signIn(request, receive)
    }
    if (error !== null) return receive(request, error, null)
    if (count < 0) return receive(request, null, DROPPED)
    if (count === 0) return this.#full(request, receive, () => this.#signIn(request, receive))
    this.#remember(at)
    this.#over = count > this.#users.limit.max
    this.#written(request, receive, null, true)
  }

  #entryText() {
    return this.#users.entryText(this.key, this.#session, this.#about)
  }

  #remember(at) {
    this.#users.recent.entered(this.#about, this.#lifeMs, at)
  }

  /** Writes the entry, which is pending unless `kind` is "a", then calls `done(error)`. */
  #entered(request, done, kind = "p") {
    const { backend, limit } = this.#users
    const { index, handle } = this
    const entry = { index, handle, ttl: this.#lifeMs, text: "", limit: limit.argument }
    try {
      entry.text = `${kind}:${this.#entryText()}`
    } catch (error) {
      return nextTick(done, error)
    }
    const at = now()
    this.#follow(
      request,
      (next) => backend.byUser(OPERATIONS.index, entry, next),
      (error, count) => {
        if (error !== null) return done(error)
        if (count === 0) {
          return this.#full(
            request,
            (_own, failure) => done(failure),
            () => this.#entered(request, done, kind),
          )
        }
        this.#remember(at)
        this.#over = count > limit.max
        done(null)
      },
    )
  }

  /** The index is full. Calls `again` if an entry without a session was dropped. */
  #full(request, receive, again) {
    this.#users.makeRoom(request, this.#about, this.#tries++, (error) => {
      if (error === null) again()
      else receive(request, error, null)
    })
  }

  /** Finishes a save after the session was written. */
  #written(request, receive, error, reply) {
    const hadOther = this.#before !== undefined && this.#before.user !== this.#about.user
    if (error !== null || (!this.#over && !hadOther)) return receive(request, error, reply)
    this.#users.tidy(request, this.#about, { over: this.#over, before: hadOther ? this.#before : undefined }, () => {
      receive(request, null, reply)
    })
  }

  #follow(request, send, done) {
    follow(request, this.#users.commandTimeoutMs, send, done)
  }
}

/** Sends another command of `request`, within the rest of its deadline. `done(error, reply)` gets its reply. */
function follow(request, commandTimeoutMs, send, done) {
  const startedAt = request.startedAt ?? request.sentAt
  const left = Math.floor(startedAt + commandTimeoutMs - now())
  const late = () => timeoutError(LATE, commandTimeoutMs)
  const settle = withDeadline(left, late, (error, reply) => request.runInAsyncScope(done, null, error, reply))
  send(request.follow(settle))
}

module.exports = { Writer, follow }
