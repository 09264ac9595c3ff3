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
  #users
  #key
  #about
  #session
  #ttl
  /** The former user of the session, as far as this process knows. */
  #before
  /** There are more entries than the limit permits. */
  #over = false
  #tries = 0
  #byTurns = false

  /** `about` is {user, index, handle}. */
  constructor(users, key, about, session, ttl, before) {
    this.#users = users
    this.#key = key
    this.#about = about
    this.#session = session
    this.#ttl = ttl
    this.#before = before
  }

  /** Whether the entry need not be written again. */
  #isFresh(ttl) {
    return this.#before === this.#about && this.#users.recent.isFresh(this.#about, ttl)
  }

  /** SET, or SET XX. The request is answered as a backend does. */
  send(operation, key, value, ttl, request) {
    const { backend } = this.#users
    const isPlain = operation === OPERATIONS.set
    const { receive } = request
    if (this.#isFresh(ttl)) {
      request.receive = (own, error, reply) => {
        if (error !== null || reply === true) return receive(own, error, reply)
        own.receive = receive
        if (reply === 0) this.#entered(own, (failure) => receive(own, failure, failure === null ? true : null), "a")
        else if (isPlain) this.#signIn(value, ttl, own, receive)
        else this.#entered(own, (failure) => receive(own, failure, null))
      }
      const { index, handle } = this.#about
      return backend.byUser(OPERATIONS.save, { key, value, ttl, index, handle }, request)
    }
    if (isPlain) {
      request.receive = (own, error, count) => {
        own.receive = receive
        this.#signedIn({ value, ttl, at: own.sentAt }, own, receive, error, count)
      }
      return backend.byUser(OPERATIONS.signIn, this.#signInOf(value, ttl), request)
    }
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
  #signIn(value, ttl, request, receive) {
    const at = now()
    request.sentAt = at
    let about
    try {
      about = this.#signInOf(value, ttl)
    } catch (error) {
      return receive(request, error, null)
    }
    this.#follow(
      request,
      (next) => this.#users.backend.byUser(OPERATIONS.signIn, about, next),
      (error, count) => this.#signedIn({ value, ttl, at }, request, receive, error, count),
    )
  }

  #signInOf(value, ttl) {
    const { prefix, ignoresMarkers } = this.#users
    const about = this.#entry()
    about.key = this.#key
    about.prefix = prefix
    about.value = value
    about.ttl = ttl
    about.ignoresMarkers = ignoresMarkers
    about.byTurns = this.#byTurns
    return about
  }

  #signedIn({ value, ttl, at }, request, receive, error, count) {
    // A proxy in front of a cluster, where a script may name only one of the two keys.
    if (error?.cause?.code === "CROSSSLOT" && !this.#byTurns) {
      this.#byTurns = true
      return this.#signIn(value, ttl, request, receive)
    }
    if (error !== null) return receive(request, error, null)
    if (count < 0) return receive(request, null, DROPPED)
    if (count === 0) return this.#full(request, receive, () => this.#signIn(value, ttl, request, receive))
    this.#remember(at)
    this.#over = count > this.#users.limit.max
    this.#written(request, receive, null, true)
  }

  #entry() {
    const { limit } = this.#users
    const text = this.#users.entryText(this.#key, this.#session, this.#about)
    const { index, handle } = this.#about
    return { index, handle, ttl: this.#ttl, text, limit: limit.argument }
  }

  #remember(at) {
    this.#users.recent.entered(this.#about, this.#ttl, at)
  }

  /** Writes the entry, which is pending unless `kind` is "a", then calls `done(error)`. */
  #entered(request, done, kind = "p") {
    const { backend, limit } = this.#users
    let entry
    try {
      entry = this.#entry()
      entry.text = `${kind}:${entry.text}`
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
