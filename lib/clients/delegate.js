"use strict"

const { argumentError, closedError, fullError, thrownError, timeoutError } = require("../errors.js")
const { Counts } = require("../observe/stats.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { inTime, nextTick, now, withDeadline } = require("../timers.js")
const { markerOf } = require("../races/marker.js")
const { delegated } = require("../users/delegated.js")
const { hasMget, isCluster } = require("./dialects.js")
const { Keyspace, keyPrefixOf, ping } = require("./keyspace.js")
const { Markers } = require("./markers.js")
const { isReplaced, serverError, textOf } = require("./replies.js")

const IDS_PAGE = 10_000
const READS = new Set(["get", "mget", "ping", "pttl", "scan"])
/** The time to live of a swap that keeps the present one. */
const KEEP = "KEEP"
/**
 * Writes `ARGV[2]` over `ARGV[1]`, to live for `ARGV[3]` milliseconds, KEEP or, if that is empty, for ever. Answers 1;
 * 0 if it is something else, nil if nothing.
 */
const SWAP_SCRIPT =
  "local now = redis.call('GET', KEYS[1]) if not now then return false end if now ~= ARGV[1] then return 0 end " +
  "local left = ARGV[3] if left == 'KEEP' then left = redis.call('PTTL', KEYS[1]) " +
  "if left < 0 then left = '' else left = math.max(left, 1) end end " +
  "if left == '' then redis.call('SET', KEYS[1], ARGV[2]) " +
  "else redis.call('SET', KEYS[1], ARGV[2], 'PX', left) end return 1"
/** Removes `KEYS[1]` if it is `ARGV[1]`. Answers 0 if it is something else. */
const REMOVE_SCRIPT =
  "local now = redis.call('GET', KEYS[1]) if not now then return 1 end " +
  "if now ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"

/**
 * The operations of lib/native/backend.js by the client's own commands, for clients whose settings cannot be
 * adopted.
 */
class Delegate {
  native = false
  /** Always "ready": the state of the client's connection is not known. */
  status = "ready"
  #client
  #dialect
  #limits
  #listener
  #keyspace
  #markers
  #isReady = false
  /** Commands that the client has not answered. */
  #pending = 0
  /** Unsettled requests of several commands, and everything else that close() waits for. */
  #kept = 0
  /** Writing commands that the client has not settled. Their requests may be settled already. */
  #unsettledWrites = 0
  #idle = []
  #closed = false
  #closing
  #counts = new Counts()
  /** The last command on each key, for clients that do not keep the order. */
  #last = new Map()

  constructor(client, dialect, limits, listener) {
    this.#listener = listener
    this.#client = client
    this.#dialect = dialect
    this.#limits = limits
    const asks = (name, command, read) => this.#ask(name, command, read)
    this.#markers = new Markers(client, dialect, asks)
    this.#keyspace = new Keyspace(client, dialect, limits, asks, (marker) => this.#markers.write(marker))
  }

  connect() {
    if (this.#isReady || this.#closed) return
    this.#isReady = true
    // By nextTick, so that an error of the application's listener is an uncaught exception.
    nextTick(() => this.#listener("ready"))
  }

  send({ name: operation }, key, value, number, request) {
    const { get, set, replace, expire, del, pttl } = this.#dialect
    const client = this.#client
    request.begin(commandOf(operation, number))
    const { sealing } = request
    if (operation === "get") this.#keyed(key, request, (done) => get(client, key, done), openerOf(sealing, key))
    else if (operation === "set" || operation === "replace") {
      let sealed
      try {
        sealed = sealing === undefined ? value : sealing.seal(key, value)
      } catch (error) {
        return nextTick(settleNow, request, error, null)
      }
      const [write, read] = operation === "set" ? [set, isDone] : [replace, isReplaced]
      this.#keyed(key, request, (done) => write(client, key, sealed, number, done), read)
    } else if (operation === "pttl") {
      this.#keyed(key, request, (done) => pttl(client, key, done), Number)
    } else if (operation === "expire" && number > 0) {
      this.#keyed(key, request, (done) => expire(client, key, number, done), Number)
    } else if (operation === "expire") {
      this.#keyed(key, request, (done) => del(client, key, done), Number)
    } else if (operation === "ping") this.#settle(request, () => this.#ping(key))
    else this.#settle(request, () => this.#answer(operation, key, value, number))
  }

  /** Writes the marker of `key`, which starts with `prefix`, then sends DEL. */
  destroy(key, prefix, request) {
    const { del, unordered } = this.#dialect
    request.begin("del")
    const marker = markerOf(prefix, key, keyPrefixOf(this.#client))
    const remove = (done) => del(this.#client, key, done)
    const behind = (done) => {
      const marked = this.#markers.write(marker)
      return unordered ? after(marked, remove)(done) : remove(done)
    }
    this.#keyed(key, request, behind, Number)
  }

  /**
   * SET of `value` unless a marker expires after `known`, in milliseconds by the clock of the server. Replies true, or
   * `[left, end]` of the marker; null if it cannot be read. The marker of the key `also`, which may be empty, counts
   * too, but not in a cluster.
   */
  restore(operation, key, prefix, value, ttl, known, also, request) {
    request.begin(this.#dialect.script === undefined ? "get" : "eval")
    const { name } = operation
    this.#settle(request, () =>
      this.#inOrder(key, () => this.#markers.restore(name, key, prefix, value, ttl, known, also)),
    )
  }

  /** An operation on the sessions of a user: see lib/users/delegated.js. */
  byUser(operation, about, request) {
    const { commandTimeoutMs } = this.#limits
    request.begin("eval")
    const late = () => timeoutError("The client did not answer", commandTimeoutMs)
    const { sealing } = request
    const run = async () => {
      const isSealed = sealing !== undefined && about.value !== undefined
      const sealed = isSealed ? { ...about, value: sealing.seal(about.key, about.value) } : about
      return delegated(operation.name, this.#asker(), sealed)
    }
    this.#settle(request, () => inTime(run(), commandTimeoutMs, late))
  }

  #asker() {
    const client = this.#client
    const { replace, script, set } = this.#dialect
    const keyed = (name, key, command, read) => {
      return ask((request) => {
        request.command = name
        request.follows = true
        this.#keyed(key, request, command, read)
      })
    }
    return {
      isCluster: isCluster(client),
      script: (text, keys, args) => keyed("eval", keys.at(-1), (done) => script(client, text, keys, args, done), same),
      replace: (key, value, ttl) => {
        return keyed("set", key, (done) => replace(client, key, value, ttl, done), isReplaced)
      },
      set: (key, value, ttl) => keyed("set", key, (done) => set(client, key, value, ttl, done), isDone),
      restore: (name, key, ...about) => this.#inOrder(key, () => this.#markers.restore(name, key, ...about)),
      destroy: (key, prefix) => {
        return ask((request) => this.destroy(key, prefix, Object.assign(request, { follows: true })))
      },
    }
  }

  /** The same, to live as long as before. */
  rewrite(key, base, value, request) {
    this.#swap(key, [base, value, KEEP], request)
  }

  /** SET of `value` if there still is `base`: true; null if there is nothing, else false. */
  swap(key, base, value, ttl, request) {
    this.#swap(key, [base, value, ttl < 0 ? "" : String(ttl)], request)
  }

  #swap(key, args, request) {
    const client = this.#client
    request.begin("eval")
    if (this.#dialect.script === undefined) {
      const error = argumentError("The client runs no scripts, which this needs; pass {url}.")
      return nextTick(settleNow, request, error, null)
    }
    const run = (done) => this.#dialect.script(client, SWAP_SCRIPT, [key], args, done)
    this.#keyed(key, request, run, (reply) => (reply === null ? null : Number(reply) === 1))
  }

  /** DEL of `key` if it still is `base`, or whatever it is where the client has no scripts; false if it is not. */
  remove(key, base, request) {
    const client = this.#client
    if (this.#dialect.script === undefined) return this.send(OPERATIONS.expire, key, "", 0, request)
    request.begin("eval")
    const run = (done) => this.#dialect.script(client, REMOVE_SCRIPT, [key], [base], done)
    this.#keyed(key, request, run, (reply) => Number(reply) === 1)
  }

  /** Runs a command about one key, after those before it on the same key. */
  #keyed(key, request, command, read) {
    if (!this.#dialect.unordered) return this.#run(request, command, read)
    const before = this.#last.get(key)
    const inOrder = before === undefined ? command : after(before, command)
    this.#follow(key, new Promise((resolve) => this.#run(request, inOrder, read, resolve)))
  }

  /** The same for several commands, whose promise `run` returns. */
  #inOrder(key, run) {
    if (!this.#dialect.unordered) return run()
    const before = this.#last.get(key)
    const promise = before === undefined ? run() : before.then(run)
    this.#follow(key, promise.then(nothing, nothing))
    return promise
  }

  #follow(key, settled) {
    this.#last.set(key, settled)
    settled.then(() => this.#last.get(key) === settled && this.#last.delete(key))
  }

  mget(keys, request) {
    request.begin("mget")
    this.#settle(request, () => this.#values(keys))
  }

  async #values(keys) {
    const { get, mget } = this.#dialect
    const client = this.#client
    if (hasMget(client)) {
      try {
        return await this.#ask(
          "mget",
          (done) => mget(client, keys, done),
          (values) => values.map(textOf),
        )
      } catch (error) {
        // A node that serves a whole cluster takes keys of one slot only.
        if (error.cause?.code !== "CROSSSLOT") throw error
      }
    }
    return Promise.all(keys.map((key) => this.#ask("get", (done) => get(client, key, done), textOf)))
  }

  /** The result of store.stats(). */
  stats() {
    return this.#counts.read({ pending: this.#pending, batches: 0, sharedBy: 1 })
  }

  /** The number of unsettled commands, plus one for each request of several commands. */
  get pending() {
    return this.#pending + this.#kept
  }

  get unsettledWrites() {
    return this.#unsettledWrites
  }

  /** Makes close() wait until release() is called. */
  keep() {
    this.#kept++
  }

  release() {
    this.#kept--
    this.#look()
  }

  #look() {
    if (this.pending === 0) for (const callback of this.#idle.splice(0)) nextTick(callback)
  }

  /** Refuses new requests and settles those that are pending. */
  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    this.#closed = true
    // A request may send another command after a reply.
    while (this.pending > 0) await new Promise((resolve) => this.#idle.push(resolve))
    this.status = "closed"
    this.#listener("end")
  }

  /** Runs one command. Its reply or the deadline settles the request, whichever comes first. */
  #run(request, command, read, settled) {
    const { command: name } = request
    const { commandTimeoutMs } = this.#limits
    const end = (error, reply) => {
      this.#pending--
      this.#counts.ended(name, error)
      settled?.()
      request.settle(error, reply)
      this.#look()
    }
    const refusal = this.#refusal(request)
    this.#pending++
    if (refusal !== undefined) return nextTick(end, refusal, null)
    const startedAt = now()
    request.sentAt = startedAt
    const late = () => timeoutError("The client did not answer", commandTimeoutMs)
    const settle = withDeadline(commandTimeoutMs, late, (error, reply) => {
      this.#counts.took(now() - startedAt)
      end(error, reply)
    })
    let isWrite = !READS.has(name)
    if (isWrite) this.#unsettledWrites++
    const written = () => {
      if (isWrite) this.#unsettledWrites--
      isWrite = false
    }
    // By nextTick: an error of the caller's callback must not look like an error of the client.
    const failed = (error) => {
      written()
      nextTick(settle, serverError(error), null)
    }
    const answered = (reply) => {
      written()
      try {
        nextTick(settle, null, read(reply))
      } catch (error) {
        failed(error)
      }
    }
    try {
      const promise = command((error, reply) => (error ? failed(error) : answered(reply)))
      if (typeof promise?.then === "function") promise.then(answered, failed)
    } catch (error) {
      failed(error)
    }
  }

  /** The reason to refuse a request. A request that follows another one was admitted with it. */
  #refusal({ follows }) {
    if (follows) return undefined
    const { maxPending } = this.#limits
    if (this.#closed) return closedError()
    return this.#pending >= maxPending ? fullError(`${maxPending} requests`, "maxPending") : undefined
  }

  /** A request of several commands: `run` returns a promise of its reply. */
  #settle(request, run) {
    const settle = (error, reply) => {
      request.settle(error, reply)
      this.release()
    }
    this.keep()
    const refusal = this.#refusal(request)
    if (refusal !== undefined) {
      this.#counts.ended(request.command, refusal)
      return nextTick(settle, refusal, null)
    }
    request.sentAt = now()
    run().then(
      (reply) => nextTick(settle, null, reply),
      (error) => nextTick(settle, serverError(error), null),
    )
  }

  async #ping(prefix) {
    const asks = (name, command, read) => this.#ask(name, command, read)
    await ping(this.#client, () => this.#keyspace.servers(), prefix, this.#dialect, asks)
    return true
  }

  /** Runs an operation on all keys. */
  async #answer(operation, prefix, others, count) {
    if (operation === "clear") return this.#keyspace.clear(prefix, others, count)
    const keys = await this.#keyspace.find(prefix, others, count)
    return operation === "length" ? keys.length : pagesOf(keys.map((key) => key.slice(prefix.length)))
  }

  /** One command of an operation on all keys: it is counted, but has no message of its own. */
  #ask(name, command, read) {
    return ask((request) => {
      request.command = name
      request.follows = true
      this.#run(request, command, read)
    })
  }
}

/** The command of an operation, or its first command. */
function commandOf(operation, number) {
  switch (operation) {
    case "replace":
      return "set"
    case "expire":
      return number > 0 ? "pexpire" : "del"
    case "length":
    case "ids":
    case "clear":
      return "scan"
    default:
      return operation
  }
}

/** `ids` as texts of JSON arrays. Each is parsed in its own turn of the event loop. */
function* pagesOf(ids) {
  for (let at = 0; at < ids.length; at += IDS_PAGE) yield JSON.stringify(ids.slice(at, at + IDS_PAGE))
}

/** Runs a command after `before` is fulfilled. The client may take callbacks or return promises. */
function after(before, command) {
  return (done) => {
    before.then(() => {
      try {
        const promise = command(done)
        if (typeof promise?.then === "function")
          promise.then(
            (reply) => done(null, reply),
            (error) => done(thrownError("The client", error)),
          )
      } catch (error) {
        done(thrownError("The client", error))
      }
    })
  }
}

const same = (reply) => reply
const isDone = () => true
const nothing = () => {}

/** Reads a value, and opens it if it is sealed. */
function openerOf(sealing, key) {
  if (sealing === undefined) return textOf
  return (reply) => {
    const text = textOf(reply)
    return text ? sealing.open(key, text) : text
  }
}

function settleNow(request, error, reply) {
  request.settle(error, reply)
}

module.exports = { Delegate }
