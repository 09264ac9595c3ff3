"use strict"

const { RedisStoreError, encodeError, thrownError } = require("../errors.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { inTime, nextTick, now } = require("../timers.js")
const { defaultUserPrefix, handleOf, indexOf, userText } = require("./keys.js")
const { Recent, entryOf } = require("./recent.js")
const { entriesOf, look } = require("./sessions.js")
const { Writer, follow } = require("./writer.js")

const MAX_INFO_BYTES = 4096
/** How often a full index is checked again while other sign-ins run. */
const TRIES = 3
/** The argument of a script without a limit. */
const NOT_COUNTED = -1
const COUNTED = -2
/** Allowance for the network where the age of an entry is compared with the time since another command. */
const TRAVEL_MS = 10
/** Finds no entry: only the time is asked for. */
const NO_HANDLE = "-"
/** The number of indexes that are swept in parallel. */
const SWEEPS = 500

/** The sessions of users: keeps an index for each user in step with the sessions that a store writes. */
class Users {
  recent = new Recent()
  #store
  #options
  #guard

  constructor(store, backend, options, guard) {
    const { maxSessionsPerUser, onDestroyed, commandTimeoutMs, hashIds } = options
    this.hashIds = hashIds === true || hashIds === "migrate"
    /** Whether what looks like a hash in a key is one. */
    this.handles = hashIds !== false
    this.backend = backend
    this.commandTimeoutMs = commandTimeoutMs
    this.ignoresMarkers = onDestroyed === "save"
    this.limit = limitOf(maxSessionsPerUser)
    this.#store = store
    this.#options = options
    this.#guard = guard
  }

  get prefix() {
    return this.#store.prefix
  }

  /** The prefix of index keys. */
  get userPrefix() {
    return this.#options.userPrefix ?? defaultUserPrefix(this.#store.prefix)
  }

  indexOf(user) {
    return indexOf(this.userPrefix, user)
  }

  /** What follows the prefix in the key of a session. */
  #nameOf(sid, key) {
    return this.hashIds ? key.slice(this.prefix.length) : typeof sid === "string" ? sid : String(sid)
  }

  /** What is known of the entry of a session. */
  #recall(sid, key) {
    return this.recent.get(this.#nameOf(sid, key), this.prefix)
  }

  #entryOf(sid, key, user, handle = handleOf(sid)) {
    return entryOf(this.#nameOf(sid, key), this.prefix, user, this.indexOf(user), handle)
  }

  /** The user of a session as text, or undefined. */
  userOf(session) {
    return this.#textOf(this.#idOf(session))
  }

  /** The user of a session as the application gives it. */
  #idOf(session) {
    try {
      return this.#options.userOf(session)
    } catch (error) {
      throw thrownError('The function of the option "userOf"', error)
    }
  }

  #textOf(id) {
    return userText(id, 'The result of the option "userOf"')
  }

  /** The text of an entry: the key of the session and its info, which is sealed as sessions are. */
  entryText(key, session, place) {
    const { sessionInfo, sealing } = this.#options
    if (sessionInfo === undefined) return JSON.stringify({ key })
    let text
    let info
    try {
      info = sessionInfo(session, session?.req)
      text = JSON.stringify({ key, info })
    } catch (error) {
      throw thrownError('The function of the option "sessionInfo"', error)
    }
    if (text.length - key.length > MAX_INFO_BYTES) {
      throw encodeError(
        `Option "sessionInfo" must return at most ${MAX_INFO_BYTES} characters of JSON, got ${text.length - key.length}; shorten its texts.`,
      )
    }
    if (!sealing.isOn || info === undefined) return text
    const plain = JSON.stringify(info)
    const sealed = sealing.seal(nameOf(place), plain)
    return sealed === plain ? text : JSON.stringify({ key, sealed })
  }

  /** What the application says of a session; empty if it does not open. */
  infoOf({ handle, info, sealed }, index) {
    const { sealing } = this.#options
    if (info === undefined && sealed === undefined) return {}
    if (sealed === undefined && !sealing.isOn) return info ?? {}
    try {
      return JSON.parse(sealing.open(nameOf({ index, handle }), sealed ?? JSON.stringify(info))) ?? {}
    } catch {
      return {}
    }
  }

  /** Where the session of an entry may be stored: other processes may have entered it by its id. */
  keysOf({ key, handle }) {
    if (!this.#options.hashIds) return [key]
    const hashed = this.#store.prefix + handle
    return key === hashed ? [key] : [hashed, key]
  }

  /** The writer of a session in place of the backend; undefined for a session without a user. */
  writerOf(sid, key, session, ttl) {
    const id = this.#idOf(session)
    const before = this.#recall(sid, key)
    // Nearly always. An entry is known once it was written, so its id is that of a user.
    if (before !== undefined && before.id === id) return new Writer(this, key, before, session, ttl, before)
    const user = this.#textOf(id)
    if (user === undefined) return before === undefined ? undefined : this.#leaver(before)
    const about = before?.user === user ? before : this.#entryOf(sid, key, user, before?.handle)
    about.id = id
    return new Writer(this, key, about, session, ttl, before)
  }

  /** Writes a session that no longer has a user, and drops the entry of its former user. */
  #leaver(before) {
    const leave = (request) => {
      const { receive } = request
      request.receive = (own, error, reply) => {
        own.receive = receive
        if (error !== null) return receive(own, error, reply)
        this.recent.delete(before.name)
        this.tidy(own, before, { before }, () => receive(own, null, reply))
      }
    }
    return {
      send: (operation, ...args) => {
        leave(args.at(-1))
        this.backend.send(operation, ...args)
      },
      swap: (...args) => {
        leave(args.at(-1))
        this.backend.swap(...args)
      },
    }
  }

  /** The receiver of a touch: extends the entry if needed, then calls `receive`. */
  toucherOf(sid, key, session, ttl, receive) {
    const id = this.#idOf(session)
    const before = this.#recall(sid, key)
    if (before !== undefined && before.id === id && this.recent.isFresh(before, ttl)) return receive
    const user = this.#textOf(id)
    if (user === undefined) return receive
    if (before?.user === user && this.recent.isFresh(before, ttl)) return receive
    const about = this.#entryOf(sid, key, user)
    about.id = id
    return this.#entererOf(about, key, session, ttl, receive)
  }

  #entererOf(about, key, session, ttl, receive) {
    const { index, handle } = about
    const entry = { index, handle, ttl, text: `a:${this.entryText(key, session, about)}`, limit: NOT_COUNTED }
    return (own, error, count) => {
      if (error !== null || !(count > 0) || ttl === 0) return receive(own, error, count)
      const at = now()
      const send = (next) => this.backend.byUser(OPERATIONS.index, entry, next)
      follow(own, this.commandTimeoutMs, send, (failure) => {
        // After an error, the next touch writes the entry.
        if (failure === null) this.recent.entered(about, ttl, at)
        receive(own, null, count)
      })
    }
  }

  /** Destroys a session by calling `send`, then drops its entry. Pass `handle` if the id is not known. */
  destroy(request, send, handle) {
    const { backend, recent, commandTimeoutMs } = this
    const { sid, key } = request
    const name = this.#nameOf(sid, key)
    const entry = recent.get(name, this.prefix)
    recent.delete(name)
    const { receive } = request
    request.startedAt = now()
    let waiting = 2
    let answer
    let found
    const answered = () => {
      if (--waiting > 0) return
      const [error, reply] = answer
      if (error !== null || found === null) return receive(request, error, reply)
      this.#within(request, this.#forget(request, entry, found, handle), () => receive(request, null, reply))
    }
    const read = (next) => {
      if (entry !== undefined) return backend.byUser(OPERATIONS.entries, entry, next)
      next.sealing = this.#guard.sealing
      backend.send(OPERATIONS.get, key, "", 0, next)
    }
    follow(request, commandTimeoutMs, read, (error, reply) => answered((found = error === null ? reply : null)))
    request.receive = (own, error, reply) => {
      own.receive = receive
      answer = [error, reply]
      answered()
    }
    send()
  }

  /** Drops the entry of a destroyed session: `found` is the earlier entry, or the text of the session. */
  async #forget({ sid, key, startedAt }, entry, found, handle = handleOf(sid)) {
    let about = entry
    let entries = found
    if (entry === undefined) {
      const text = this.#guard.sealing === undefined ? this.#guard.opened(key, found) : found
      const user = this.userOf(await this.#store.serializer.parse(text))
      if (user === undefined) return
      about = { index: this.indexOf(user), handle }
      entries = await this.ask(OPERATIONS.entries, about)
      const [item] = entriesOf(entries)
      // An entry that was written since belongs to a later session.
      if (item === undefined || item.ageMs < now() - startedAt + TRAVEL_MS) return
    }
    const items = entriesOf(entries)
    if (items.length > 0) await this.ask(OPERATIONS.remove, { ...about, items })
  }

  /** Cleans up after a sign-in: ends sessions above the limit, and drops the entry of the former user. */
  tidy(request, about, { over = false, before }, done) {
    const tidied = async () => {
      if (before !== undefined) {
        const items = entriesOf(await this.ask(OPERATIONS.entries, before))
        if (items.length > 0) await this.ask(OPERATIONS.remove, { ...before, items })
      }
      if (over) await this.#endOldest(about)
    }
    this.#within(request, tidied(), done)
  }

  /** Ends the oldest sessions of a user above the limit. */
  async #endOldest({ user, index }) {
    const { mine, pending } = await this.#look(user)
    // The same order for all parallel sign-ins.
    const all = [...mine, ...pending].toSorted((a, b) => a.created - b.created || (a.handle < b.handle ? -1 : 1))
    const surplus = all.length - this.limit.max
    if (surplus > 0) await this.revoke(index, all.slice(0, surplus))
  }

  #look(user) {
    const { backend, commandTimeoutMs } = this
    return look(this.#store, { users: this, backend, guard: this.#guard, commandTimeoutMs }, user)
  }

  /** The index of a user is full. `done(null)` if an entry without a session was dropped. */
  makeRoom(request, { user }, tries, done) {
    const made = async () => {
      const { mine, pending } = await this.#look(user)
      return mine.length + pending.length < this.limit.max && tries < TRIES
    }
    const finish = (hasRoom) => done(hasRoom ? null : limitError(this.limit.max))
    const left = (request.startedAt ?? request.sentAt) + this.commandTimeoutMs - now()
    inTime(made(), left, () => limitError(this.limit.max)).then(
      (hasRoom) => nextTick(() => request.runInAsyncScope(finish, null, hasRoom)),
      (error) => nextTick(() => request.runInAsyncScope(done, null, error)),
    )
  }

  /** Ends sessions. Returns the number that existed. */
  async revoke(index, items) {
    if (items.length === 0) return 0
    const each = items.flatMap((item) =>
      this.keysOf(item).map((key) => ({ key, handle: item.handle, entry: item.entry })),
    )
    for (const { key } of each) this.recent.delete(key.slice(this.prefix.length))
    return this.ask(OPERATIONS.revoke, { index, prefix: this.prefix, items: each })
  }

  /** Drops the entries that were written before `startedAt`, after all sessions were cleared. */
  async clear(startedAt) {
    this.recent.clear()
    await this.#eachIndex(async (index) => {
      const time = (await this.ask(OPERATIONS.entries, { index, handle: NO_HANDLE })).at(-1)
      // When the clearing began, or earlier, by the clock that dates the entries: however late the sweep is run.
      const whole = Math.floor(Number(time) - (now() - startedAt) * 1000)
      await this.ask(OPERATIONS.sweep, { index, whole, pending: whole - 2 * this.commandTimeoutMs * 1000 })
    })
  }

  /** Writes every entry as the options say now: with the hash of an id, and with what is sealed by the first key. */
  async reseal() {
    await this.#eachIndex(async (index) => {
      for (const entry of entriesOf(await this.ask(OPERATIONS.entries, { index }))) {
        const renewed = await this.#renewed(index, entry)
        if (renewed === entry.entry) continue
        await this.ask(OPERATIONS.renew, { index, handle: entry.handle, entry: entry.entry, renewed })
      }
    })
  }

  async #renewed(index, { handle, entry, key, info, sealed, isWhole, ageMs }) {
    const text = { key }
    const [hashed] = this.keysOf({ key, handle })
    // A sign-in by an id may be between its two steps.
    const mayComeYet = !isWhole && ageMs < 2 * this.commandTimeoutMs
    if (this.hashIds && hashed !== key && !mayComeYet) {
      const left = await ask((request) => this.backend.send(OPERATIONS.pttl, key, "", 0, request))
      // Else it could not be moved.
      if (left === -2) text.key = hashed
    }
    return (
      entry.slice(0, entry.indexOf("{")) +
      JSON.stringify({ ...text, ...this.#resealed(index, { handle, info, sealed }) })
    )
  }

  /** What does not open stays as it is. */
  #resealed(index, { handle, info, sealed }) {
    const { sealing } = this.#options
    const stored = sealed ?? (info === undefined ? undefined : JSON.stringify(info))
    if (stored === undefined) return { info, sealed }
    try {
      const again = sealing.resealed(nameOf({ index, handle }), stored)
      if (again === null) return { info, sealed }
      // No text of JSON begins so.
      return again.startsWith("~") ? { sealed: again } : { info: JSON.parse(again) }
    } catch {
      return { info, sealed }
    }
  }

  /** Runs `work(index)` for the index of every user, for some at once. */
  async #eachIndex(work) {
    const { userPrefix, backend } = this
    const pages = await ask((request) => backend.send(OPERATIONS.ids, userPrefix, "", this.#store.scanCount, request))
    for (const page of pages) {
      const indexes = JSON.parse(page).filter((name) => /^\{[\w-]{43}\}$/.test(name))
      for (let at = 0; at < indexes.length; at += SWEEPS) {
        await Promise.all(indexes.slice(at, at + SWEEPS).map((name) => work(userPrefix + name)))
      }
    }
  }

  ask(operation, about) {
    return ask((request) => this.backend.byUser(operation, about, request))
  }

  /**
   * Waits for `promise` within the rest of the deadline of `request`. An error is ignored: a later command
   * repairs the index.
   */
  #within(request, promise, done) {
    const left = (request.startedAt ?? request.sentAt) + this.commandTimeoutMs - now()
    const finish = () => nextTick(() => request.runInAsyncScope(done))
    inTime(promise, left, () => undefined).then(finish, finish)
  }
}

function limitOf(option) {
  if (option === undefined) return { max: Infinity, argument: NOT_COUNTED }
  const { max, onLimit } = typeof option === "number" ? { max: option } : option
  return { max, argument: onLimit === "reject" ? max : COUNTED }
}

/** What an entry is sealed under: no key of a session. */
function nameOf({ index, handle }) {
  return `${index} ${handle}`
}

function limitError(max) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_SESSION_LIMIT",
    `The session was not saved: its user already has ${max} sessions (option "maxSessionsPerUser"); end one of them.`,
  )
}

module.exports = { Users }
