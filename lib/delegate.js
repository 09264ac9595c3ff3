"use strict"

const { performance } = require("node:perf_hooks")

const { RedisStoreError, optionError } = require("./errors.js")
const { ask } = require("./request.js")
const { Counts } = require("./stats.js")

const SCAN_COUNT_MIN = 1000
const DELETE_KEYS = 1000
const IDS_PAGE = 10_000
const PTTL = ["pttl", "pTTL"]

/**
 * How clients spell the few commands that a store needs. Each returns a promise or, if the client
 * takes callbacks, calls `done`; whichever comes first counts. `names` must be there.
 */
const DIALECTS = {
  /** Redis's own order of arguments: ioredis, redis 2 and 3, their mocks, and most of what is unknown. */
  positional: {
    names: ["get", "set", ["pexpire", "pExpire", "expire"], "del", "scan"],
    get: (client, key, done) => client.get(key, done),
    set: (client, key, value, ms, done) => client.set(key, value, ...(ms < 0 ? [] : ["PX", ms]), done),
    replace: (client, key, value, ms, done) => client.set(key, value, ...(ms < 0 ? [] : ["PX", ms]), "XX", done),
    pttl: (client, key, done) => client[named(client, PTTL)](key, done),
    expire: (client, key, ms, done) => {
      const name = named(client, ["pexpire", "pExpire"])
      return name === undefined ? client.expire(key, Math.ceil(ms / 1000), done) : client[name](key, ms, done)
    },
    del: (client, keys, done) => client.del(keys, done),
    mget: (client, keys, done) => client[named(client, ["mget", "mGet"])](keys, done),
    scan: (client, cursor, match, count, done) => client.scan(cursor, "MATCH", match, "COUNT", count, done),
    ping: (client, done) => client.ping(done),
  },
  /** redis 4 to 6. */
  nodeRedis: {
    names: ["get", "set", "pExpire", "del", "scan"],
    get: (client, key) => client.get(key),
    set: (client, key, value, ms) => client.set(key, value, ms < 0 ? {} : { PX: ms }),
    replace: (client, key, value, ms) => client.set(key, value, ms < 0 ? { XX: true } : { PX: ms, XX: true }),
    pttl: (client, key) => client.pTTL(key),
    expire: (client, key, ms) => client.pExpire(key, ms),
    del: (client, keys) => client.del(keys),
    mget: (client, keys) => client.mGet(keys),
    scan: (client, cursor, match, count) => client.scan(cursor, { MATCH: match, COUNT: count }),
    ping: (client) => client.ping(),
  },
  glide: {
    // Its core runs commands at once.
    unordered: true,
    names: ["get", "set", "pexpire", "del", "scan"],
    get: (client, key) => client.get(key),
    set: (client, key, value, ms) => client.set(key, value, ms < 0 ? {} : { expiry: { type: "PX", count: ms } }),
    replace: (client, key, value, ms) =>
      client.set(key, value, {
        conditionalSet: "onlyIfExists",
        ...(ms >= 0 && { expiry: { type: "PX", count: ms } }),
      }),
    pttl: (client, key) => client.pttl(key),
    expire: (client, key, ms) => client.pexpire(key, ms).then(Number),
    del: (client, keys) => client.del([keys].flat()),
    mget: (client, keys) => client.mget(keys),
    scan: (client, cursor, match, count) => client.scan(cursor, { match, count }),
    ping: (client) => client.ping(),
  },
  upstash: {
    // Each command is an HTTP request of its own.
    unordered: true,
    names: ["get", "set", "pexpire", "del", "scan"],
    get: (client, key) => client.get(key),
    set: (client, key, value, ms) => client.set(key, value, ms < 0 ? {} : { px: ms }),
    replace: (client, key, value, ms) => client.set(key, value, ms < 0 ? { xx: true } : { px: ms, xx: true }),
    pttl: (client, key) => client.pttl(key),
    expire: (client, key, ms) => client.pexpire(key, ms),
    del: (client, keys) => client.del(...[keys].flat()),
    mget: (client, keys) => client.mget(...keys),
    scan: (client, cursor, match, count) => client.scan(cursor, { match, count }),
    ping: (client) => client.ping(),
  },
}

/** A cluster client routes by key: what names many keys goes key by key, and SCAN to each master. */
DIALECTS.nodeRedisCluster = {
  ...DIALECTS.nodeRedis,
  names: ["get", "set", "pExpire", "del"],
  del: (client, keys) =>
    Promise.all([keys].flat().map((key) => client.del(key))).then((counts) => counts.reduce((sum, n) => sum + n, 0)),
  mget: (client, keys) => Promise.all(keys.map((key) => client.get(key))),
  masters: (client) => Promise.all((client.masters ?? []).map((master) => client.nodeClient(master))),
}

const named = (client, names) => names.find((name) => typeof client[name] === "function")

/** The dialect of a client, whose `name` a known kind says; a TypeError if it lacks a command. */
function dialectOf(client, name) {
  const dialect =
    DIALECTS[name ?? (typeof client.pExpire === "function" && !isLegacy(client) ? "nodeRedis" : "positional")]
  for (const names of dialect.names) {
    if (named(client, [names].flat()) === undefined) {
      throw optionError(
        `Option "client" must be a Redis client, got an object without the method ${[names].flat()[0]}(); pass a client of redis or ioredis, or {url: "redis://..."}.`,
      )
    }
  }
  return dialect
}

/** redis 5 and 6's `legacy()`: the names of redis 4 with the callbacks of redis 3. */
function isLegacy(client) {
  return client.constructor?.name === "RedisLegacyClient"
}

/**
 * The same few operations as lib/batch.js, spoken through the client's own commands: for clients
 * that have no connection whose settings could be adopted.
 */
class Delegate {
  native = false
  /** A client's own circuit is its own. */
  state = "closed"
  #client
  #dialect
  #limits
  #listener
  #pending = 0
  #closed = false
  #counts = new Counts()
  /** The last command on each key, where the client keeps no order. */
  #last = new Map()

  static hasPttl(client) {
    return named(client, PTTL) !== undefined
  }

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
    if (operation === "get") this.#keyed(key, request, (done) => get(client, key, done), textOf)
    else if (operation === "set") {
      this.#keyed(key, request, (done) => set(client, key, value, number, done), isDone)
    } else if (operation === "replace") {
      this.#keyed(key, request, (done) => replace(client, key, value, number, done), isReplaced)
    } else if (operation === "pttl") {
      this.#keyed(key, request, (done) => pttl(client, key, done), Number)
    } else if (operation === "expire" && number > 0) {
      this.#keyed(key, request, (done) => expire(client, key, number, done), Number)
    } else if (operation === "del" || operation === "expire") {
      this.#keyed(key, request, (done) => del(client, key, done), Number)
    } else if (operation === "ping") this.#settle(request, this.#ping())
    else this.#answer(operation, key, number, request)
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
    const many = named(this.#client, ["mget", "mGet"]) !== undefined
    if (many)
      return this.#run(
        request,
        (done) => mget(this.#client, keys, done),
        (values) => values.map(textOf),
      )
    const one = (key) => this.#ask("get", (done) => get(this.#client, key, done), textOf)
    this.#settle(request, Promise.all(keys.map(one)))
  }

  /** What store.stats() returns. */
  stats() {
    return this.#counts.read({ pending: this.#pending, batches: 0 })
  }

  async close() {
    if (this.#closed) return
    this.#closed = true
    this.state = "end"
    this.#listener("end")
  }

  /** Runs one command; its reply or the deadline settles the request, whichever is first. */
  #run(request, command, read, settled) {
    const { command: name } = request
    const startedAt = performance.now()
    let open = true
    let timer = null
    const settle = (error, reply) => {
      if (!open) return
      open = false
      this.#pending--
      this.#counts.ended(name, error)
      // Without a timer it was refused.
      if (timer !== null) this.#counts.took(performance.now() - startedAt)
      clearTimeout(timer)
      settled?.()
      request.runInAsyncScope(request.settle, request, error, reply)
    }
    const { commandTimeoutMs, maxPending } = this.#limits
    this.#pending++
    if (this.#closed || this.#pending > maxPending) {
      const refusal = this.#closed
        ? new RedisStoreError("ERR_REDIS_STORE_CLOSED", "The store is closed; make a new RedisStore to go on.")
        : new RedisStoreError(
            "ERR_REDIS_STORE_QUEUE_FULL",
            `${maxPending} requests are pending already (option "maxPending"); Redis is slower than they come.`,
          )
      return void process.nextTick(settle, refusal, null)
    }
    timer = setTimeout(() => {
      const message = `The client did not answer within ${commandTimeoutMs} ms (option "commandTimeoutMs").`
      settle(new RedisStoreError("ERR_REDIS_STORE_TIMEOUT", message), null)
    }, commandTimeoutMs)
    // By nextTick: what a callback of the caller throws must not come back as an error of the client.
    const done = (error, reply) => {
      try {
        if (error) throw error
        process.nextTick(settle, null, read(reply))
      } catch (thrown) {
        process.nextTick(settle, serverError(thrown), null)
      }
    }
    try {
      const promise = command(done)
      if (typeof promise?.then === "function") promise.then((reply) => done(null, reply), done)
    } catch (error) {
      done(error)
    }
  }

  #settle(request, promise) {
    promise.then(
      (reply) => process.nextTick(settleNow, request, null, reply),
      (error) => process.nextTick(settleNow, request, error, null),
    )
  }

  async #ping() {
    if (named(this.#client, ["ping"]) === undefined) {
      throw new RedisStoreError("ERR_REDIS_STORE_OPTIONS", "The client has no method ping().")
    }
    const masters = await this.#masters()
    await Promise.all(masters.map((master) => this.#ask("ping", (done) => this.#dialect.ping(master, done), same)))
    return true
  }

  async #masters() {
    return (await this.#dialect.masters?.(this.#client)) ?? [this.#client]
  }

  /** The questions about all keys. */
  #answer(operation, prefix, count, request) {
    const keys = this.#keys(prefix, count)
    if (operation === "clear")
      this.#settle(
        request,
        keys.then((found) => this.#remove(found)),
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

  async #keys(prefix, count) {
    // Clients put their own prefix before keys, but not before patterns, and leave it on what SCAN finds.
    const own = keyPrefixOf(this.#client)
    const begin = own + prefix
    const pattern = `${begin.replace(/[*?[\]\\]/g, "\\$&")}*`
    const size = Math.max(count, SCAN_COUNT_MIN)
    const found = new Set()
    for (const master of await this.#masters()) {
      let cursor = "0"
      do {
        const reply = await this.#ask("scan", (done) => this.#dialect.scan(master, cursor, pattern, size, done), same)
        const [next, keys] = Array.isArray(reply) ? reply : [reply.cursor, reply.keys]
        for (const key of keys) if (key.startsWith(begin)) found.add(key.slice(own.length))
        cursor = String(next)
      } while (cursor !== "0")
    }
    return [...found]
  }

  async #remove(keys) {
    let removed = 0
    for (let at = 0; at < keys.length; at += DELETE_KEYS) {
      const some = keys.slice(at, at + DELETE_KEYS)
      removed += await this.#ask("del", (done) => this.#dialect.del(this.#client, some, done), Number)
    }
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

/** `ids` as texts of JSON arrays, each of which is parsed in a turn of the event loop. */
function* pagesOf(ids) {
  for (let at = 0; at < ids.length; at += IDS_PAGE) yield JSON.stringify(ids.slice(at, at + IDS_PAGE))
}

const same = (reply) => reply
const isDone = (reply) => reply === "OK"
/** Null where there was nothing to replace. */
const isReplaced = (reply) => (reply == null ? null : isDone(reply))

/** The text of a value; some clients parse what looks like JSON. */
function textOf(reply) {
  if (reply == null || typeof reply === "string") return reply ?? null
  return JSON.stringify(reply)
}

function serverError(error) {
  if (error instanceof RedisStoreError) return error
  return new RedisStoreError("ERR_REDIS_STORE_SERVER", "The client reported an error; see its cause.", error)
}

function settleNow(request, error, reply) {
  request.settle(error, reply)
}

module.exports = { Delegate, dialectOf }
