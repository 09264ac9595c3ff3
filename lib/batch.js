"use strict"

const { debug, isDebugged } = require("./diagnostics.js")
const { RedisStoreError } = require("./errors.js")
const { load: loadBinding } = require("./load.js")
const { COMMAND, OPERATION } = require("./operations.js")
const { Outbox } = require("./outbox.js")
const { ask } = require("./request.js")
const { giveRoots } = require("./native/roots.js")
const { Counts } = require("./stats.js")

/** The numbers that src/binding/delivery.rs gives to answers. */
const [NIL, OK, COUNT, TEXT, TEXTS, , NOTICE] = [0, 1, 2, 3, 4, 5, 6]
const ANSWER_HEADER = 2
const ANSWER_COLUMNS = 3
const ANSWERS_PER_TURN = 512

/** Notices, by their numbers there: first the states of the circuit, then what has happened. */
const STATES = ["closed", "open", "half-open"]
const [READY, RECONNECTING, FAILED] = [3, 4, 5]

/** Bun and Deno have an event loop of another kind, and some of libuv's names. */
const IS_NODE = process.versions.bun === undefined && process.versions.deno === undefined

/** A batch of more text than this is not waited for: V8 has no string for more than 512 M units. */
const TEXT_MAX_UNITS = 2 ** 26

/** Answers are read here by whichever store is being woken: nobody holds on to them. */
const answers = new Float64Array(ANSWER_HEADER + ANSWERS_PER_TURN * ANSWER_COLUMNS)

/** Batches with pending requests. They keep the process alive; an idle store does not. */
const busy = new Set()
const alive = setInterval(() => {}, 2 ** 31 - 1)
alive.unref()

let binding
let codes

function load() {
  if (binding !== undefined) return
  binding = loadBinding()
  codes = binding.errorCodes()
}

/**
 * The native side of one store: gathers the requests of one turn of the event loop, hands them
 * over in one call, and settles each when its answer comes.
 */
class Batch {
  native = true
  /** Of the circuit: "closed", "open" or "half-open". After close(), "end". */
  state = STATES[0]
  #readSettings
  #limits
  #maxPendingBytes
  #listener
  #keyPrefix = ""
  #connecting
  /** Requests that came before the settings were known, and how they are made again. */
  #waiting = []
  #store
  #requests = []
  #free = []
  #pending = 0
  #pendingBytes = 0
  #outbox = new Outbox()
  #flushing = false
  #batches = 0
  /** Messages of this batch's requests, where somebody listens. */
  #traces = []
  #counts = new Counts()
  /** Where requests go, if that is one server. */
  #server
  #closed = false
  #closing
  /** Called when nothing is pending any more. */
  #idle

  /** `listener` is called with the name of an event and, for "error", the error. */
  constructor(readSettings, { maxPendingBytes, ...limits }, listener) {
    this.#readSettings = readSettings
    this.#limits = limits
    this.#maxPendingBytes = maxPendingBytes
    this.#listener = listener
    load()
  }

  /** Connects, unless that was done. Throws what is wrong with the settings. */
  connect() {
    if (this.#store !== undefined || this.#connecting !== undefined || this.#closed) return
    const settings = this.#readSettings()
    if (typeof settings.then !== "function") return this.#start(settings)
    const { commandTimeoutMs } = this.#limits
    const late = new Promise((_resolve, reject) => {
      setTimeout(reject, commandTimeoutMs, new Error(`no answer within ${commandTimeoutMs} ms`)).unref()
    })
    this.#connecting = Promise.race([settings, late])
      .then((found) => this.#start(found))
      .catch((error) => this.#refuseWaiting(error))
  }

  #refuseWaiting(cause) {
    this.#connecting = undefined
    const message = "The client did not tell its settings; see the cause."
    const error =
      cause instanceof RedisStoreError ? cause : new RedisStoreError("ERR_REDIS_STORE_CONNECT", message, cause)
    for (const { request } of this.#waiting.splice(0)) {
      this.release()
      this.#refuse(request, error)
    }
  }

  #start({ keyPrefix = "", credentials, ...settings }) {
    this.#keyPrefix = keyPrefix
    this.#server = serverOf(settings)
    const batch = new WeakRef(this)
    const wake = () => batch.deref()?.wake()
    const ask = credentials && ((number) => batch.deref()?.#answer(number, credentials))
    giveRoots(binding, settings)
    try {
      this.#store = new binding.RedisStore(
        { cluster: false, ...settings, ...this.#limits, watched: IS_NODE },
        wake,
        ask,
      )
    } catch {
      // What Node-API says of a value of the wrong type quotes it, and it may be a password.
      throw new RedisStoreError(
        "ERR_REDIS_STORE_OPTIONS",
        "The client's settings have a value of the wrong type; check its host, port, database, user, password and TLS.",
      )
    }
    for (const { add } of this.#waiting.splice(0)) {
      add()
      this.release()
    }
    this.#flush()
  }

  /** Answers the native half's question for credentials. */
  async #answer(number, credentials) {
    try {
      const { username, password } = await credentials()
      for (const value of [username, password]) {
        if (value != null && typeof value !== "string") {
          throw new TypeError('Option "credentials" must return {username, password} with strings.')
        }
      }
      this.#store.answer(number, username ?? undefined, password ?? undefined)
    } catch (error) {
      this.#store.answer(number, undefined, undefined, String(error?.message ?? "no reason was given"))
    }
  }

  /** One command about one key. `number` is milliseconds to live, negative for ever. */
  send(operation, key, value, number, request) {
    request.begin(COMMAND[operation])
    const units = key.length + value.length
    if (!this.#admits(request, units, () => this.send(operation, key, value, number, request))) return
    this.#add(this.#open(request), operation, this.#keyPrefix + key, value, number)
  }

  /** SET of `value` if there still is `base`: true; else null if there is nothing, or what is there instead. */
  swap(key, base, value, ttl, request) {
    request.begin(COMMAND[OPERATION.swap])
    if (!this.#admits(request, base.length + value.length, () => this.swap(key, base, value, ttl, request))) return
    this.#add(this.#open(request), OPERATION.swap, this.#keyPrefix + key, base, ttl)
    this.#outbox.row(0, 0, value, "", 0)
  }

  /**
   * SET of what `mine` has changed of `base`, in what others have made of it, `theirs`, within so many
   * milliseconds. Null if there is nothing any more, else the paths that both had changed, as JSON.
   */
  merge(key, { base, mine, theirs }, ttl, withinMs, request) {
    request.begin(COMMAND[OPERATION.merge])
    const units = base.length + mine.length + theirs.length
    const again = () => this.merge(key, { base, mine, theirs }, ttl, withinMs, request)
    if (!this.#admits(request, units, again)) return
    this.#add(this.#open(request), OPERATION.merge, this.#keyPrefix + key, base, withinMs)
    this.#outbox.row(0, 0, mine, theirs, ttl)
  }

  /** The values of `keys`, at least one. */
  mget(keys, request) {
    request.begin(COMMAND[OPERATION.mget])
    if (this.#store === undefined || this.#closed) {
      if (!this.#accepts(request, () => this.mget(keys, request))) return
    }
    this.#add(this.#open(request), OPERATION.mget, "", "", keys.length)
    for (const key of keys) this.#outbox.row(0, 0, this.#keyPrefix + key, "", 0)
  }

  /** What store.stats() returns. */
  stats() {
    return this.#counts.read({ pending: this.#pending, batches: this.#batches }, this.#store?.stats(), codes)
  }

  /** Answers what is pending, then closes the connection. */
  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    if (this.#connecting !== undefined) await this.#connecting
    this.#closed = true
    // A command that is answered may be followed by another of its request.
    while (this.#pending > 0) await new Promise((resolve) => (this.#idle = resolve))
    if (this.#store !== undefined) {
      await ask((request) => {
        const id = this.#open(request)
        this.#flush()
        this.#store.close(id)
      })
    }
    this.state = "end"
    this.#listener("end")
  }

  /** Whether a request of so many characters can be added now; if not, `again` does so later or it has been refused. */
  #admits(request, units, again) {
    if (this.#store === undefined || this.#closed) {
      if (!this.#accepts(request, again)) return false
    }
    if (this.#pendingBytes + units > this.#maxPendingBytes) {
      this.#refuse(request, fullError(this.#maxPendingBytes))
      return false
    }
    this.#pendingBytes += units
    request.bytes = units
    if (this.#outbox.units + units > TEXT_MAX_UNITS) this.#flush()
    return true
  }

  /** Whether a request can be sent now; if not, `add` sends it later or it has been refused. */
  #accepts(request, add) {
    if (this.#closed && (this.#store === undefined || !request.follows)) {
      const error = new RedisStoreError(
        "ERR_REDIS_STORE_CLOSED",
        "The store is closed; make a new RedisStore to go on.",
      )
      this.#refuse(request, error)
      return false
    }
    try {
      this.connect()
    } catch (error) {
      this.#refuse(request, error)
      return false
    }
    if (this.#store !== undefined) return true
    this.keep()
    this.#waiting.push({ request, add })
    return false
  }

  /** Answers a request that never reaches the native half. */
  #refuse(request, error) {
    this.#counts.ended(request.command, error)
    process.nextTick(settleNow, request, error)
  }

  #open(request) {
    const id = this.#free.length > 0 ? this.#free.pop() : this.#requests.length
    this.#requests[id] = request
    if (request.trace !== undefined) this.#join(request.trace)
    this.keep()
    return id
  }

  #join(trace) {
    if (this.#server !== undefined) trace.server = this.#server
    this.#traces.push(trace)
  }

  #take(id) {
    const request = this.#requests[id]
    this.#requests[id] = undefined
    this.#free.push(id)
    this.#pendingBytes -= request.bytes
    this.release()
    return request
  }

  /** Something is pending, a command or not: it keeps the process alive, and close() waits for it. */
  keep() {
    if (this.#pending++ > 0) return
    busy.add(this)
    if (busy.size === 1) alive.ref()
  }

  release() {
    if (--this.#pending > 0) return
    busy.delete(this)
    if (busy.size === 0) alive.unref()
    this.#idle?.()
  }

  #add(id, operation, key, value, number) {
    this.#outbox.add(id, operation, key, value, number)
    if (!this.#flushing) {
      this.#flushing = true
      // With nothing else pending, nothing is won by waiting for the end of the turn.
      if (this.#pending === 1) process.nextTick(flush, this)
      else setImmediate(flush, this)
    }
  }

  flush() {
    this.#flushing = false
    if (this.#store !== undefined) this.#flush()
  }

  #flush() {
    const { count } = this.#outbox
    if (count === 0) return
    this.#batches++
    if (isDebugged()) debug("a batch of %d", count)
    for (const trace of this.#traces.splice(0)) trace.batchSize = count
    this.#outbox.submit(this.#store)
  }

  /** Settles what has been answered. */
  wake() {
    const store = this.#store
    // The native half that called may have failed meanwhile.
    if (store === undefined) return
    const texts = store.drain(answers, this.#pending)
    const [count, left] = answers
    if (left > 0) setImmediate(wake, this)
    // What the callbacks ask for leaves together, behind the last of them.
    this.#flushing = true
    try {
      this.#settle(store, texts, count)
    } finally {
      this.flush()
    }
  }

  #settle(store, texts, count) {
    let text = 0
    for (let i = 0, at = ANSWER_HEADER; i < count; i++, at += ANSWER_COLUMNS) {
      const kind = answers[at + 1]
      const number = answers[at + 2]
      let error = null
      let reply = null
      if (kind === TEXT) {
        reply = texts[text++]
      } else if (kind === OK) {
        reply = true
      } else if (kind === COUNT) {
        reply = number
      } else if (kind === TEXTS) {
        reply = texts.slice(text, text + number)
        text += number
      } else if (kind === NOTICE) {
        text += this.#notice(number, texts, text)
        // It has failed, and what else it said is answered.
        if (this.#store !== store) return
        continue
      } else if (kind !== NIL) {
        error = errorOf(number, texts[text], texts[text + 1])
        text += 2
      }
      const request = this.#take(answers[at])
      try {
        request.runInAsyncScope(request.settle, request, error, reply)
      } catch (thrown) {
        // The others of this turn are answered all the same; this one surfaces as what it is.
        request.runInAsyncScope(process.nextTick, process, rethrow, thrown)
      }
    }
  }

  /** Passes a notice on, and returns how many of the texts from `at` on are its own. */
  #notice(number, texts, at) {
    if (number < STATES.length) {
      this.state = STATES[number]
      this.#tell("state")
      return 0
    }
    if (number === READY || number === RECONNECTING) {
      this.#tell(number === READY ? "ready" : "reconnecting")
      return 0
    }
    if (number === FAILED) {
      this.#tell("error", errorOf(codes.indexOf(texts[at]), texts[at + 1], texts[at + 2]))
      return 3
    }
    this.#restart(texts[at])
    return 1
  }

  /** A listener that throws is an uncaught exception, and nothing to the answers of this turn. */
  #tell(event, error) {
    try {
      this.#listener(event, error)
    } catch (thrown) {
      process.nextTick(rethrow, thrown)
    }
  }

  /** The native half has failed: nothing pending will be answered by it, and the next request starts another. */
  #restart(place) {
    const pending = this.#requests.filter((request) => request !== undefined)
    const error = errorOf(
      codes.indexOf("ERR_REDIS_STORE_CONNECT"),
      `The native half of the store failed (${place ?? "at an unknown place"}) and is started anew; please report this.`,
    )
    this.#store = undefined
    this.#connecting = undefined
    this.#requests = []
    this.#free = []
    this.#pendingBytes = 0
    this.#outbox.clear()
    this.#traces = []
    for (const request of pending) {
      this.release()
      this.#refuse(request, error)
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

function settleNow(request, error) {
  request.runInAsyncScope(request.settle, request, error, null)
}

function serverOf({ nodes, cluster, sentinel, database }) {
  if (cluster || sentinel !== undefined || nodes.length !== 1) return undefined
  const [{ host, port, path }] = nodes
  return { ...(path === undefined ? { host, port } : { path }), database: database ?? 0 }
}

function fullError(maxPendingBytes) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_QUEUE_FULL",
    `${maxPendingBytes} bytes of requests are pending already (option "maxPendingBytes"); Redis is slower than they come.`,
  )
}

function rethrow(thrown) {
  throw thrown
}

function errorOf(code, message, cause) {
  return new RedisStoreError(codes[code], message, cause == null ? undefined : new Error(cause))
}

module.exports = { Batch }
