"use strict"

const { RedisStoreError, argumentError, closedError, timeoutError } = require("../errors.js")
const { Counts } = require("../observe/stats.js")
const { ask } = require("../request.js")
const { nextTick, now, withDeadline } = require("../timers.js")
const { MARKER_LIFE_MS, RESTORE_SCRIPT, isMarker, markerOf } = require("../races/marker.js")
const { hasMget, hasScripts, isCluster } = require("./dialects.js")

const SCAN_COUNT_MIN = 1000
const DELETE_KEYS = 1000
const IDS_PAGE = 10_000
/** Writes `ARGV[2]` over `ARGV[1]`, to live as long as before. Answers 1; 0 if it is something else, nil if nothing. */
const REWRITE_SCRIPT =
  "local now = redis.call('GET', KEYS[1]) if not now then return false end if now ~= ARGV[1] then return 0 end " +
  "local left = redis.call('PTTL', KEYS[1]) if left < 0 then redis.call('SET', KEYS[1], ARGV[2]) " +
  "else redis.call('SET', KEYS[1], ARGV[2], 'PX', math.max(left, 1)) end return 1"
/** Removes `KEYS[1]` if it is `ARGV[1]`. Answers 0 if it is something else. */
const REMOVE_SCRIPT =
  "local now = redis.call('GET', KEYS[1]) if not now then return 1 end " +
  "if now ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"

/**
 * The same few operations as lib/native/backend.js, spoken through the client's own commands: for clients
 * that have no connection whose settings could be adopted.
 */
class Delegate {
  native = false
  /** What a client's connection is like is the client's to say. */
  status = "ready"
  #client
  #dialect
  #limits
  #listener
  #pending = 0
  #idle = []
  #closed = false
  #counts = new Counts()
  /** The last command on each key, where the client keeps no order. */
  #last = new Map()

  constructor(client, dialect, limits, listener) {
    this.#listener = listener
    this.#client = client
    this.#dialect = dialect
    this.#limits = limits
  }

  connect() {}

  send(operation, key, value, number, request) {
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
    } else if (operation === "ping") this.#settle(request, this.#ping())
    else this.#answer(operation, key, number, request)
  }

  /** DEL of `key`, which starts with `prefix`, behind a marker. */
  destroy(key, prefix, request) {
    const { del, unordered } = this.#dialect
    request.begin("del")
    const marker = markerOf(prefix, key, keyPrefixOf(this.#client))
    const remove = (done) => {
      const marked = this.#mark(marker)
      return unordered ? marked.then(() => del(this.#client, key, done)) : del(this.#client, key, done)
    }
    this.#keyed(key, request, remove, Number)
  }

  /** Writes a marker. A session is destroyed whether that can be done or not. */
  async #mark(marker) {
    try {
      await this.#ask("set", (done) => this.#dialect.set(this.#client, marker, "", MARKER_LIFE_MS, done), isDone)
    } catch {}
  }

  /**
   * SET of `value` unless a marker has more than `known` milliseconds left: true, else that number. Null if
   * it cannot be known.
   */
  restore(_operation, key, prefix, value, ttl, known, request) {
    const client = this.#client
    request.begin("eval")
    if (!hasScripts(client)) return nextTick(settleNow, request, null, null)
    const own = keyPrefixOf(client)
    const keys = [key, markerOf(prefix, key, own)]
    // That of all keys is in another slot.
    if (!isCluster(client)) keys.push(markerOf(prefix, prefix, own))
    const args = [value, ttl < 0 ? "" : String(ttl), "", String(known), String(MARKER_LIFE_MS)]
    const run = (done) => this.#dialect.script(client, RESTORE_SCRIPT, keys, args, done)
    this.#keyed(key, request, run, restored)
  }

  /** SET of `value`, to live as long as before, if there still is `base`: true; null if there is nothing, else false. */
  rewrite(key, base, value, request) {
    const client = this.#client
    request.begin("eval")
    if (!hasScripts(client)) {
      const error = argumentError("The client has no method eval(), which this needs; pass {url}.")
      return nextTick(settleNow, request, error, null)
    }
    const run = (done) => this.#dialect.script(client, REWRITE_SCRIPT, [key], [base, value], done)
    this.#keyed(key, request, run, (reply) => (reply === null ? null : Number(reply) === 1))
  }

  /** DEL of `key` if it still is `base`, or whatever it is where the client has no scripts; false if it is not. */
  remove(key, base, request) {
    const client = this.#client
    if (!hasScripts(client)) return this.send("expire", key, "", 0, request)
    request.begin("eval")
    const run = (done) => this.#dialect.script(client, REMOVE_SCRIPT, [key], [base], done)
    this.#keyed(key, request, run, (reply) => Number(reply) === 1)
  }

  /** Runs a command about one key, after those before it on the same key. */
  #keyed(key, request, command, read) {
    if (!this.#dialect.unordered) return this.#run(request, command, read)
    const before = this.#last.get(key)
    const inOrder = before === undefined ? command : (done) => before.then(() => command(done))
    const settled = new Promise((resolve) => this.#run(request, inOrder, read, resolve))
    this.#last.set(key, settled)
    settled.then(() => this.#last.get(key) === settled && this.#last.delete(key))
  }

  mget(keys, request) {
    const { get, mget } = this.#dialect
    request.begin("mget")
    if (hasMget(this.#client)) {
      const read = (values) => values.map(textOf)
      return this.#run(request, (done) => mget(this.#client, keys, done), read)
    }
    const one = (key) => this.#ask("get", (done) => get(this.#client, key, done), textOf)
    this.#settle(request, Promise.all(keys.map(one)))
  }

  /** What store.stats() returns. */
  stats() {
    return this.#counts.read({ pending: this.#pending, batches: 0, sharedBy: 1 })
  }

  get pending() {
    return this.#pending
  }

  /** Calls `callback` when nothing is pending. */
  whenIdle(callback) {
    if (this.#pending === 0) callback()
    else this.#idle.push(callback)
  }

  async close() {
    if (this.#closed) return
    this.#closed = true
    this.status = "closed"
    this.#listener("end")
  }

  /** Runs one command; its reply or the deadline settles the request, whichever is first. */
  #run(request, command, read, settled) {
    const { command: name } = request
    const { commandTimeoutMs, maxPending } = this.#limits
    const end = (error, reply) => {
      if (--this.#pending === 0) for (const callback of this.#idle.splice(0)) nextTick(callback)
      this.#counts.ended(name, error)
      settled?.()
      request.settle(error, reply)
    }
    if (this.#pending++ >= maxPending || this.#closed) {
      return nextTick(end, this.#closed ? closedError() : fullError(maxPending), null)
    }
    const startedAt = now()
    request.sentAt = startedAt
    const late = () => timeoutError("The client did not answer", commandTimeoutMs)
    const settle = withDeadline(commandTimeoutMs, late, (error, reply) => {
      this.#counts.took(now() - startedAt)
      end(error, reply)
    })
    // By nextTick: what a callback of the caller throws must not come back as an error of the client.
    const failed = (error) => nextTick(settle, serverError(error), null)
    const answered = (reply) => {
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

  #settle(request, promise) {
    promise.then(
      (reply) => nextTick(settleNow, request, null, reply),
      (error) => nextTick(settleNow, request, error, null),
    )
  }

  async #ping() {
    if (typeof this.#client.ping !== "function") throw argumentError("The client has no method ping().")
    const masters = await this.#masters()
    await Promise.all(masters.map((master) => this.#ask("ping", (done) => this.#dialect.ping(master, done), same)))
    return true
  }

  async #masters() {
    return (await this.#dialect.masters?.(this.#client)) ?? [this.#client]
  }

  /** The questions about all keys. */
  #answer(operation, prefix, count, request) {
    const keys = this.#keys(prefix, count, operation === "clear")
    if (operation === "clear")
      this.#settle(
        request,
        keys.then((found) => this.#remove(prefix, found)),
      )
    else if (operation === "length")
      this.#settle(
        request,
        keys.then((found) => found.length),
      )
    else {
      const ids = keys.then((found) => pagesOf(found.map((key) => key.slice(prefix.length))))
      this.#settle(request, ids)
    }
  }

  async #keys(prefix, count, clears) {
    // Clients put their own prefix before keys, but not before patterns, and leave it on what SCAN finds.
    const own = keyPrefixOf(this.#client)
    const begin = own + prefix
    const pattern = `${begin.replace(/[*?[\]\\]/g, "\\$&")}*`
    const size = Math.max(count, SCAN_COUNT_MIN)
    const found = new Set()
    if (clears) await this.#mark(markerOf(prefix, prefix, own))
    const add = (keys) => {
      for (const key of keys) {
        if (key.startsWith(begin) && !isMarker(begin, key)) found.add(key.slice(own.length))
      }
    }
    for (const master of await this.#masters()) {
      if (this.#dialect.iterate !== undefined) {
        await this.#iterate(master, pattern, size, add)
        continue
      }
      let cursor = "0"
      do {
        const reply = await this.#ask("scan", (done) => this.#dialect.scan(master, cursor, pattern, size, done), same)
        const [next, keys] = Array.isArray(reply) ? reply : [reply.cursor, reply.keys]
        add(keys)
        cursor = String(next)
      } while (cursor !== "0")
    }
    return [...found]
  }

  /** One step of an iterator is one command. redis 4 yields keys, redis 5 and 6 lists of them. */
  async #iterate(client, pattern, size, add) {
    let steps
    for (;;) {
      const step = await this.#ask(
        "scan",
        async () => {
          steps ??= this.#dialect.iterate(client, pattern, size)[Symbol.asyncIterator]()
          return steps.next()
        },
        same,
      )
      if (step.done) return
      add([step.value].flat())
    }
  }

  /** Sessions that were loaded before they are removed do not come back. */
  async #remove(prefix, keys) {
    const own = keyPrefixOf(this.#client)
    let removed = 0
    for (let at = 0; at < keys.length; at += DELETE_KEYS) {
      const some = keys.slice(at, at + DELETE_KEYS)
      const marked = isCluster(this.#client) ? some : [prefix]
      const marking = Promise.all(marked.map((key) => this.#mark(markerOf(prefix, key, own))))
      if (this.#dialect.unordered) await marking
      removed += await this.#ask("del", (done) => this.#dialect.del(this.#client, some, done), Number)
    }
    // Of those that were loaded between two commands.
    if (removed > 0) await this.#mark(markerOf(prefix, prefix, own))
    return removed
  }

  /** One command of a larger question: counted, but no message of its own. */
  #ask(name, command, read) {
    return ask((request) => {
      request.command = name
      this.#run(request, command, read)
    })
  }
}

/** The command that an operation is, or begins with. */
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

/** The prefix that the client itself puts before keys: ioredis and redis 6 by one name, redis 2 and 3 by another. */
function keyPrefixOf(client) {
  if ("connection_options" in client) return client.options.prefix ?? ""
  if ("_keyPrefix" in client) return client._keyPrefix ?? ""
  return ("connector" in client || client.isCluster === true) && client.options.keyPrefix
    ? client.options.keyPrefix
    : ""
}

/** `ids` as texts of JSON arrays. Each is parsed in its own turn of the event loop. */
function* pagesOf(ids) {
  for (let at = 0; at < ids.length; at += IDS_PAGE) yield JSON.stringify(ids.slice(at, at + IDS_PAGE))
}

const same = (reply) => reply
const isDone = () => true
/** What the script of markers answers. */
function restored(reply) {
  if (reply === null) return null
  const left = Number(reply)
  return Number.isNaN(left) ? true : left
}

/** Null where there was nothing to replace. */
const isReplaced = (reply) => (reply === null ? null : true)

/** Reads a value, and opens it if it is sealed. */
function openerOf(sealing, key) {
  if (sealing === undefined) return textOf
  return (reply) => {
    const text = textOf(reply)
    return text ? sealing.open(key, text) : text
  }
}

/** The text of a value; some clients parse what looks like JSON. */
function textOf(reply) {
  if (reply == null || typeof reply === "string") return reply ?? null
  return JSON.stringify(reply)
}

function serverError(error) {
  if (error instanceof RedisStoreError) return error
  return new RedisStoreError("ERR_REDIS_STORE_SERVER", "The client reported an error; see its cause.", coded(error))
}

/** An error with the code that its message begins with, such as OOM: clients differ in whether they set it. */
function coded(error) {
  const [word] = /^[A-Z][A-Z0-9]+(?= )/.exec(error?.message) ?? []
  if (word === undefined || error.code !== undefined || !Object.isExtensible(error)) return error
  return Object.defineProperty(error, "code", { value: word, configurable: true, enumerable: true, writable: true })
}

function fullError(maxPending) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_QUEUE_FULL",
    `${maxPending} requests are pending already (option "maxPending"); Redis is slower than they come.`,
  )
}

function settleNow(request, error, reply) {
  request.settle(error, reply)
}

module.exports = { Delegate, keyPrefixOf }
