"use strict"

const { argumentError, optionError } = require("../errors.js")

const SECOND_MS = 1000

/**
 * The methods and arguments by which clients send the commands that a store needs. Each returns a promise or,
 * if the client takes callbacks, calls `done`; the first of the two counts. If a client lacks a method, the
 * request that needs it fails.
 */
const DIALECTS = {
  /** Redis's own order of arguments: ioredis, redis 2 and 3, their mocks, and most unknown clients. */
  positional: {
    get: (client, key, done) => method(client, "get")(key, done),
    set: (client, key, value, ms, done) => method(client, "set")(key, value, ...(ms < 0 ? [] : ["PX", ms]), done),
    replace: (client, key, value, ms, done) =>
      method(client, "set")(key, value, ...(ms < 0 ? [] : ["PX", ms]), "XX", done),
    pttl: (client, key, done) => method(client, "pttl", "pTTL")(key, done),
    expire: (client, key, ms, done) => {
      const exact = ["pexpire", "pExpire"].find((name) => has(client, name))
      if (exact !== undefined) return client[exact](key, ms, done)
      return method(client, "expire")(key, seconds(ms), done)
    },
    del: (client, keys, done) => method(client, "del")(keys, done),
    mget: (client, keys, done) => method(client, "mget", "mGet")(keys, done),
    script: (client, text, keys, args, done) => client.eval(text, keys.length, ...keys, ...args, done),
    scan: (client, cursor, match, count, done) => method(client, "scan")(cursor, "MATCH", match, "COUNT", count, done),
    ping: (client, done) => method(client, "ping")(done),
  },
  /** redis 4 to 6. */
  nodeRedis: {
    get: (client, key) => method(client, "get")(key),
    set: (client, key, value, ms) => method(client, "set")(key, value, ms < 0 ? {} : { PX: ms }),
    replace: (client, key, value, ms) =>
      method(client, "set")(key, value, ms < 0 ? { XX: true } : { PX: ms, XX: true }),
    pttl: (client, key) => method(client, "pTTL")(key),
    expire: (client, key, ms) => method(client, "pExpire")(key, ms),
    del: (client, keys) => method(client, "del")(keys),
    mget: (client, keys) => method(client, "mGet")(keys),
    script: (client, text, keys, args) => client.eval(text, { keys, arguments: args }),
    scan: (client, cursor, match, count) => method(client, "scan")(cursor, { MATCH: match, COUNT: count }),
    ping: (client) => method(client, "ping")(),
  },
  /** Exactly the calls of connect-redis 10, for wrappers of redis 5 and 6. */
  connectRedis: {
    get: (client, key) => method(client, "get")(key),
    set: (client, key, value, ms) =>
      ms < 0 ? method(client, "set")(key, value) : method(client, "set")(key, value, { expiration: expiration(ms) }),
    replace: (client, key, value, ms) =>
      method(client, "set")(key, value, { condition: "XX", ...(ms >= 0 && { expiration: expiration(ms) }) }),
    pttl: (client, key) => method(client, "pTTL", "pttl")(key),
    expire: (client, key, ms) =>
      has(client, "expire") ? client.expire(key, seconds(ms)) : method(client, "expire", "pExpire")(key, ms),
    del: (client, keys) => method(client, "del")([keys].flat()),
    mget: (client, keys) => method(client, "mGet", "mget")(keys),
    script: (client, text, keys, args) => client.eval(text, { keys, arguments: args }),
    iterate: (client, match, count) => method(client, "scanIterator")({ MATCH: match, COUNT: count }),
    ping: (client) => method(client, "ping")(),
  },
  glide: {
    // Its core runs commands in parallel.
    unordered: true,
    get: (client, key) => method(client, "get")(key),
    set: (client, key, value, ms) =>
      method(client, "set")(key, value, ms < 0 ? {} : { expiry: { type: "PX", count: ms } }),
    replace: (client, key, value, ms) =>
      method(client, "set")(key, value, {
        conditionalSet: "onlyIfExists",
        ...(ms >= 0 && { expiry: { type: "PX", count: ms } }),
      }),
    pttl: (client, key) => method(client, "pttl")(key),
    expire: (client, key, ms) => method(client, "pexpire")(key, ms).then(Number),
    del: (client, keys) => method(client, "del")([keys].flat()),
    mget: (client, keys) => method(client, "mget")(keys),
    script: (client, text, keys, args) => client.customCommand(["EVAL", text, String(keys.length), ...keys, ...args]),
    scan: (client, cursor, match, count) => method(client, "scan")(cursor, { match, count }),
    ping: (client) => method(client, "ping")(),
  },
  upstash: {
    // Each command is an HTTP request of its own.
    unordered: true,
    get: (client, key) => method(client, "get")(key),
    set: (client, key, value, ms) => method(client, "set")(key, value, ms < 0 ? {} : { px: ms }),
    replace: (client, key, value, ms) =>
      method(client, "set")(key, value, ms < 0 ? { xx: true } : { px: ms, xx: true }),
    pttl: (client, key) => method(client, "pttl")(key),
    expire: (client, key, ms) => method(client, "pexpire")(key, ms),
    del: (client, keys) => method(client, "del")(...[keys].flat()),
    mget: (client, keys) => method(client, "mget")(...keys),
    script: (client, text, keys, args) => client.eval(text, keys, args),
    scan: (client, cursor, match, count) => method(client, "scan")(cursor, { match, count }),
    ping: (client) => method(client, "ping")(),
  },
}

/** redis-mock has no scripts. */
DIALECTS.mock = { ...DIALECTS.positional, script: undefined }

/** A pool has several connections, and so may a sentinel client: they run commands in parallel. */
DIALECTS.nodeRedisPool = { ...DIALECTS.nodeRedis, unordered: true }

/** A cluster client routes by key: the store sends commands about several keys key by key, and SCAN to each master. */
const BY_KEY = {
  del: (client, keys) =>
    Promise.all([keys].flat().map((key) => method(client, "del")(key))).then((counts) =>
      counts.reduce((sum, n) => sum + Number(n), 0),
    ),
  mget: (client, keys) => Promise.all(keys.map((key) => method(client, "get")(key))),
}

DIALECTS.nodeRedisCluster = {
  ...DIALECTS.nodeRedis,
  ...BY_KEY,
  script: (client, text, keys, args) => {
    if (!isRedis4(client)) return DIALECTS.nodeRedis.script(client, text, keys, args)
    // Its eval() looks for the key in the wrong argument: it asks random nodes, and may end with MOVED.
    return client.sendCommand(keys[0], false, ["EVAL", text, String(keys.length), ...keys, ...args])
  },
  masters: (client) => Promise.all((client.masters ?? []).map((master) => client.nodeClient(master))),
}

DIALECTS.ioredisCluster = {
  ...DIALECTS.positional,
  ...BY_KEY,
  script: (client, text, keys, args, done) => {
    if (!client.options?.enableAutoPipelining) return DIALECTS.positional.script(client, text, keys, args, done)
    // The automatic pipelines of ioredis 4 and iovalkey take the text for the key.
    const pipeline = client.pipeline().eval(text, keys.length, ...keys, ...args)
    return pipeline.exec().then(
      ([[error, reply]]) => {
        if (error !== null) throw error
        return reply
      },
      (error) => {
        // The client compares the slots itself.
        throw /same slot/.test(error?.message) ? new Error(`CROSSSLOT ${error.message}`, { cause: error }) : error
      },
    )
  },
  masters: async (client) => {
    // The client knows its masters after it has connected, and its commands wait for that.
    if (client.nodes("master").length === 0) await client.ping()
    return client.nodes("master")
  },
}

/** The cursor of valkey-glide's cluster client before its first SCAN. */
const FIRST = { getCursor: () => "" }

DIALECTS.glideCluster = {
  ...DIALECTS.glide,
  scan: async (client, cursor, match, count) => {
    const [next, keys] = await method(client, "scan")(cursor === "0" ? FIRST : cursor, { match, count })
    return [next.isFinished() ? "0" : next, keys]
  },
}

/** The methods that connect-redis calls, for wrappers of each kind of client: other methods may bypass the wrapper. */
const WRAPPED = {
  positional: (dialect) => ({
    ...dialect,
    set: (client, key, value, ms, done) =>
      method(client, "set")(key, value, ...(ms < 0 ? [] : ["EX", seconds(ms)]), done),
    replace: (client, key, value, ms, done) =>
      method(client, "set")(key, value, ...(ms < 0 ? [] : ["EX", seconds(ms)]), "XX", done),
    expire: (client, key, ms, done) => method(client, "expire")(key, seconds(ms), done),
  }),
  nodeRedis: (dialect, client) => {
    const { set, replace, expire, del, mget, iterate } = DIALECTS.connectRedis
    const isOld = isRedis4(client)
    return {
      ...dialect,
      set: isOld ? (own, key, value, ms) => method(own, "set")(key, value, ms < 0 ? {} : { EX: seconds(ms) }) : set,
      replace: isOld
        ? (own, key, value, ms) => method(own, "set")(key, value, { XX: true, ...(ms >= 0 && { EX: seconds(ms) }) })
        : replace,
      expire,
      ...(dialect.masters === undefined ? { del, mget } : BY_KEY),
      // Pools have no scanIterator.
      ...(dialect.masters === undefined && has(client, "scanIterator") && { iterate }),
    }
  },
  glide: (dialect) => ({
    ...dialect,
    expire: (client, key, ms) => method(client, "expire")(key, seconds(ms)).then(Number),
  }),
}

/**
 * The dialect of a client. `name` is that of its kind, if the kind is known; `isWrapped`: some commands are not
 * the library's own. Throws a TypeError if the client lacks a method that every store needs. Only known kinds
 * get scripts: any other client may put keys into a namespace, in the commands that it knows.
 */
function dialectOf(client, name, isWrapped) {
  const missing = ["get", "set", "del"].find((needed) => !has(client, needed))
  if (missing !== undefined) {
    throw optionError(
      `Option "client" must be a Redis client, got an object without the method ${missing}(); pass a client of redis or ioredis, or {url: "redis://..."}.`,
    )
  }
  const spoken = name ?? guessed(client)
  if (!isWrapped && (name !== undefined || isLegacy(client))) return DIALECTS[spoken]
  const family = Object.keys(WRAPPED).find((each) => isWrapped && (spoken === each || kinOf(spoken) === each))
  const dialect = family === undefined ? DIALECTS[spoken] : WRAPPED[family](DIALECTS[spoken], client)
  // A wrapper may delay one command more than the next.
  return { ...dialect, script: undefined, unordered: true }
}

/** The dialect that the dialect of a pool or cluster is derived from. */
function kinOf(name) {
  if (name.startsWith("nodeRedis")) return "nodeRedis"
  return { ioredisCluster: "positional", glideCluster: "glide" }[name]
}

function guessed(client) {
  if (isLegacy(client)) return "positional"
  if (has(client, "pExpire") && has(client, "scan")) return "nodeRedis"
  if (has(client, "mGet") || has(client, "scanIterator")) return "connectRedis"
  return ["scan", "pexpire", "mget", "setex"].some((name) => has(client, name)) ? "positional" : "connectRedis"
}

/**
 * redis 5 and 6's `legacy()`: the names of redis 4 with the callbacks of redis 3. Known by the static methods of its
 * class, as bundlers shorten the name of a class.
 */
function isLegacy({ constructor }) {
  return typeof constructor?.pushArguments === "function" && typeof constructor.getTransformReply === "function"
}

/** The first of these methods that the client has. */
function method(client, ...names) {
  const name = names.find((each) => has(client, each))
  if (name === undefined) throw argumentError(`The client has no method ${names[0]}(), which this request needs.`)
  return (...args) => client[name](...args)
}

function has(client, name) {
  return typeof client[name] === "function"
}

/** Whether a client of redis 4 to 6 is one of redis 4. */
function isRedis4(client) {
  return !("withTypeMapping" in client)
}

/** A cluster client sends each command to the node of its keys, which must be in one slot. */
function isCluster(client) {
  return client.isCluster === true || "masters" in client || "startupNodes" in client || has(client, "fcallWithRoute")
}

function hasPttl(client) {
  return has(client, "pttl") || has(client, "pTTL")
}

function hasMget(client) {
  return has(client, "mget") || has(client, "mGet")
}

function seconds(ms) {
  return Math.ceil(ms / SECOND_MS)
}

function expiration(ms) {
  return { type: "EX", value: seconds(ms) }
}

module.exports = { dialectOf, has, hasMget, hasPttl, isCluster }
