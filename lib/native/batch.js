"use strict"

const { AsyncResource } = require("node:async_hooks")

const { RedisStoreError, fullError } = require("../errors.js")
const { debug, isDebugged } = require("../observe/diagnostics.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { clearImmediate, nextTick, now, setImmediate } = require("../timers.js")
const { rowsOf } = require("../users/rows.js")
const { takeAnswers } = require("./answers.js")
const { Outbox } = require("./outbox.js")
const { Pending } = require("./pending.js")
const { loadProtocol } = require("./protocol.js")

/** Bun and Deno have another event loop, but export some of libuv's symbols. */
const IS_NODE = process.versions.bun === undefined && process.versions.deno === undefined

// Outside the first caller's AsyncLocalStorage context: Node-API keeps the context of the creation, and calls back in it.
const createNative = AsyncResource.bind((...args) => new (loadProtocol().binding.RedisStore)(...args))

/** A batch with more text than this is sent at once: V8's strings have at most 512 M units. */
const TEXT_MAX_UNITS = 2 ** 26

/**
 * The native connection of one or several stores: collects the requests of one turn of the event loop, passes
 * them to the native half in one call, and settles each request when its answer arrives.
 */
class Batch {
  /** "connecting", "ready", "down" or "closed". */
  status = "connecting"
  /** False after the connection has failed or was closed: it then accepts no requests. */
  isOpen = true
  #protocol = loadProtocol()
  #native
  #keyPrefix
  #maxPendingBytes
  /** The server, if there is only one. */
  #server
  #failed = false
  #sealings = new WeakMap()
  #isConnected = false
  #circuit = "closed"
  /** The backends of its stores. Weak, so that a store that is dropped without close() can be garbage collected. */
  #members = new Set()
  #pending = new Pending()
  /** Notices that are not handled yet. One array for all turns. */
  #notices = []
  #outbox = new Outbox(this.#protocol.requestColumns)
  #flushing = false
  /** The time of the first request in the batch. */
  #openedAt = 0
  #count = 0
  /** Messages of this batch's requests, where there are subscribers. */
  #traces = []

  constructor({ keyPrefix, credentials, ...settings }, { maxPendingBytes, ...limits }) {
    this.#keyPrefix = keyPrefix
    this.#maxPendingBytes = maxPendingBytes
    this.#server = serverOf(settings)
    const self = new WeakRef(this)
    const wake = () => self.deref()?.wake()
    const question = credentials && ((number) => self.deref()?.#answer(number, credentials))
    try {
      this.#native = createNative({ ...settings, ...limits, watched: IS_NODE }, wake, question)
    } catch {
      // Node-API's error quotes a value of the wrong type, which may be a password.
      throw new RedisStoreError(
        "ERR_REDIS_STORE_OPTIONS",
        "The client's settings have a value of the wrong type; check its host, port, database, user, password and TLS.",
      )
    }
  }

  /** The number of stores that share it. */
  get shared() {
    return this.#live().length
  }

  join(member) {
    this.#members.add(new WeakRef(member))
    // The first member receives the event itself.
    if (this.#isConnected) setImmediate(() => member.noticed("ready", undefined))
  }

  #live() {
    const live = []
    for (const reference of this.#members) {
      const member = reference.deref()
      if (member === undefined) this.#members.delete(reference)
      else live.push(member)
    }
    return live
  }

  /** Removes `member`, which has no pending requests. The last member closes the connection. */
  async leave(member) {
    for (const reference of this.#members) {
      if (reference.deref() === member) this.#members.delete(reference)
    }
    if (this.#live().length > 0 || !this.isOpen) return
    this.status = "closed"
    this.isOpen = false
    await ask((request) => {
      request.owner = member
      const id = this.#open(request)
      this.#flush()
      this.#native.close(id)
    })
  }

  /** Answers a request of the native half for credentials. */
  async #answer(number, credentials) {
    try {
      const { username, password } = await credentials()
      for (const value of [username, password]) {
        if (value != null && typeof value !== "string") {
          throw new TypeError('Option "credentials" must return {username, password} with strings.')
        }
      }
      this.#native.answer(number, username ?? undefined, password ?? undefined)
    } catch (error) {
      this.#native.answer(number, undefined, undefined, String(error?.message ?? "no reason was given"))
    }
  }

  /** One command about one key. `number` is milliseconds to live; negative: no expiry. */
  send(operation, key, value, number, request) {
    if (!this.#admits(request, key.length + value.length)) return
    this.#add(this.#open(request), operation, this.#keyPrefix + key, value, number, request.sealing)
  }

  /** SET of `value` if `base` is still stored. Replies true, or the stored value; null if there is none. */
  swap(key, base, value, ttl, request) {
    if (!this.#admits(request, base.length + value.length)) return
    this.#add(this.#open(request), OPERATIONS.swap, this.#keyPrefix + key, base, ttl)
    this.#outbox.row(0, 0, value, "", 0)
  }

  /**
   * SET of `theirs`, the stored value, with the changes from `base` to `mine`, within `withinMs` milliseconds.
   * Replies null if the session does not exist, otherwise the paths that both sides have changed, as JSON.
   */
  merge(key, { base, mine, theirs }, ttl, withinMs, request) {
    if (!this.#admits(request, base.length + mine.length + theirs.length)) return
    this.#add(this.#open(request), OPERATIONS.merge, this.#keyPrefix + key, base, withinMs, request.sealing)
    this.#outbox.row(0, 0, mine, theirs, ttl)
  }

  /** Writes the marker of `key`, which starts with `prefix`, then sends DEL. */
  destroy(key, prefix, request) {
    if (!this.#admits(request, key.length + prefix.length)) return
    this.#add(this.#open(request), OPERATIONS.destroy, this.#keyPrefix + key, this.#keyPrefix + prefix, 0)
  }

  /**
   * SET of `value` unless a marker expires after `known`, in milliseconds by the clock of the server. Replies true, or
   * `[left, end]` of the marker; null if it cannot be read. The marker of the key `also`, which may be empty, counts
   * too, but not in a cluster. The operation "add" replies a value that there is, and does not replace it; "marker"
   * writes nothing.
   */
  restore(operation, key, prefix, value, ttl, known, also, request) {
    if (!this.#admits(request, key.length + prefix.length + value.length + also.length)) return
    this.#add(this.#open(request), operation, this.#keyPrefix + key, this.#keyPrefix + prefix, ttl)
    this.#outbox.row(0, 0, value, also === "" ? "" : this.#keyPrefix + also, known)
  }

  /** An operation on the sessions of a user: see lib/users/rows.js. */
  byUser(operation, about, request) {
    if (operation === OPERATIONS.save) return this.#saveEntered(about, request)
    if (operation === OPERATIONS.signIn) return this.#signIn(about, request)
    const { rows, units } = rowsOf(operation.name, this.#keyPrefix, about)
    if (!this.#admits(request, units)) return
    const [[key, value, number], ...more] = rows
    this.#add(this.#open(request), operation, key, value, number, request.sealing)
    for (const row of more) this.#outbox.row(0, 0, ...row)
  }

  // The two most frequent of these operations, without a list of rows.

  #saveEntered({ key, value, ttl, index, place }, request) {
    if (!this.#admits(request, key.length + value.length + place.length)) return
    const own = this.#keyPrefix
    this.#add(this.#open(request), OPERATIONS.save, own + key, value, ttl, request.sealing)
    this.#outbox.joined(own + place, own.length + index.length, 0)
  }

  #signIn({ index, place, ttl, text, limit, key, prefix, value, ignoresMarkers, byTurns }, request) {
    const own = this.#keyPrefix
    const units = key.length + value.length + place.length + text.length + prefix.length
    if (!this.#admits(request, units)) return
    this.#add(this.#open(request), OPERATIONS.signIn, own + key, value, ttl, request.sealing)
    this.#outbox.joined(own + place, own.length + index.length, limit)
    this.#outbox.row(0, 0, text, own + prefix, (ignoresMarkers ? 1 : 0) + (byTurns ? 2 : 0))
  }

  /** The values of `keys`, at least one. */
  mget(keys, request) {
    this.#add(this.#open(request), OPERATIONS.mget, "", "", keys.length)
    for (const key of keys) this.#outbox.row(0, 0, this.#keyPrefix + key, "", 0)
  }

  /** The number of batches, and the numbers of src/core/stats.rs. */
  stats() {
    return { batches: this.#count, numbers: this.#failed ? undefined : this.#native.stats() }
  }

  /** Whether any server that holds keys is connected. */
  get isServing() {
    return this.isOpen && this.#native.isServing()
  }

  /** Returns whether a request of `units` characters may be added. If not, it was refused. */
  #admits(request, units) {
    if (this.#pending.units + units > this.#maxPendingBytes) {
      request.owner.refuse(request, fullError(`${this.#maxPendingBytes} bytes of requests`, "maxPendingBytes"))
      return false
    }
    this.#pending.units += units
    request.bytes = units
    if (this.#outbox.units + units > TEXT_MAX_UNITS) this.#flush()
    return true
  }

  #open(request) {
    const id = this.#pending.open(request)
    if (!this.#flushing) this.#openedAt = now()
    request.sentAt = this.#openedAt
    request.owner.keep()
    if (request.trace !== undefined) {
      if (this.#server !== undefined) request.trace.server = this.#server
      this.#traces.push(request.trace)
    }
    return id
  }

  #add(id, operation, key, value, number, sealing) {
    let code = operation.number
    if (sealing !== undefined) code += this.#protocol.sealingFactor * this.#sealingOf(sealing)
    this.#outbox.add(id, code, key, value, number)
    if (this.#flushing) return
    this.#flushing = true
    // With no other pending request, waiting for the end of the turn gains nothing.
    if (this.#pending.count === 1) nextTick(flush, this)
    else setImmediate(flush, this)
  }

  /** The number by which the native half knows how a store seals. */
  #sealingOf(sealing) {
    let number = this.#sealings.get(sealing)
    if (number === undefined) {
      number = this.#native.addSealing(sealing.native, Buffer.byteLength(this.#keyPrefix))
      this.#sealings.set(sealing, number)
    }
    return number
  }

  flush() {
    this.#flushing = false
    this.#flush()
  }

  #flush() {
    const { count } = this.#outbox
    if (count === 0 || this.#failed) return
    this.#count++
    if (isDebugged()) debug("a batch of %d", count)
    for (const trace of this.#traces.splice(0)) trace.batchSize = count
    this.#outbox.submit(this.#native)
  }

  /** Settles the answered requests. */
  wake() {
    // The native half that called may have failed meanwhile.
    if (this.#failed) return
    const left = takeAnswers(this.#native, this.#pending, this.#notices)
    if (left > 0) setImmediate(wake, this)
    if (this.#notices.length > 0) this.#handleNotices()
    this.settle()
  }

  /**
   * Settles every answered request. Requests that the callbacks make are sent together, after the last
   * callback. If a callback runs the event loop itself, that inner loop settles and sends too.
   */
  settle() {
    const pending = this.#pending
    if (!pending.hasAnswered) return
    const meanwhile = setImmediate(goOn, this)
    this.#flushing = true
    this.#openedAt = now()
    try {
      while (pending.hasAnswered) {
        const request = pending.takeAnswered()
        request.owner.settle(request, request.error, request.reply)
      }
    } finally {
      clearImmediate(meanwhile)
      this.flush()
    }
  }

  #handleNotices() {
    for (const { notice, error } of this.#notices.splice(0)) this.#notice(notice, error)
  }

  #notice(notice, error) {
    switch (notice) {
      case "crashed":
        return this.#crash(error)
      case "failed":
        return this.#tell("error", error)
      case "ready":
      case "reconnecting":
        this.#isConnected = notice === "ready"
        this.#update()
        return this.#tell(notice)
      default:
        this.#circuit = notice
        this.#update()
        this.#tell("status")
    }
  }

  #update() {
    if (this.status === "closed") return
    this.status = this.#circuit !== "closed" ? "down" : this.#isConnected ? "ready" : "connecting"
  }

  #tell(event, error) {
    for (const member of this.#live()) member.noticed(event, error)
  }

  /** Handles a failure of the native half: pending requests fail, and the next request starts a new native half. */
  #crash(error) {
    this.#failed = true
    this.isOpen = false
    this.status = "connecting"
    for (const request of this.#pending.abandoned()) {
      request.owner.release()
      request.owner.refuse(request, error)
    }
    this.#tell("error", error)
  }
}

function flush(batch) {
  batch.flush()
}

function wake(batch) {
  batch.wake()
}

function goOn(batch) {
  batch.flush()
  batch.settle()
}

function serverOf({ nodes, cluster, sentinel, database }) {
  if (cluster || sentinel !== undefined || nodes.length !== 1) return undefined
  const [{ host, port, path }] = nodes
  return { ...(path === undefined ? { host, port } : { path }), database: database ?? 0 }
}

module.exports = { Batch }
