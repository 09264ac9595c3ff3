"use strict"

const { optionError, shown } = require("./errors.js")

const MAX_TIMER_MS = 2 ** 31 - 1

const boolean = (value) => typeof value === "boolean"
const integer = (min, max) => (value) => Number.isInteger(value) && value >= min && value <= max

/** Every option: its default, what it must be, and the test for that. */
const OPTIONS = {
  client: { must: "be a Redis client", test: (value) => typeof value === "object" || typeof value === "function" },
  url: { must: "be a Redis URL", test: (value) => typeof value === "string" || value instanceof URL },
  nodes: { must: "be a list of a cluster's nodes", test: Array.isArray },
  sentinel: {
    must: "be an object with name and nodes",
    test: (value) => typeof value === "object" && !Array.isArray(value),
  },
  tls: { must: "be true or an object of TLS options", test: (value) => ["boolean", "object"].includes(typeof value) },
  username: { must: "be a string", test: (value) => typeof value === "string" },
  password: { must: "be a string", test: (value) => typeof value === "string" },
  credentials: {
    must: "be a function that returns {username, password}, or a promise of it",
    test: (value) => typeof value === "function",
  },
  database: {
    must: "be a database number",
    test: (value) => Number.isInteger(value) && value >= 0 && value <= 0x7fffffff,
  },
  clientName: {
    must: "be a string without spaces",
    test: (value) => typeof value === "string" && /^[!-~]+$/.test(value),
  },
  prefix: { initial: "sess:", must: "be a string", test: (value) => typeof value === "string" },
  ttl: {
    initial: 86400,
    must: "be a positive number of seconds, or a function of the session that returns one; for sessions that never expire set disableTTL",
    test: (value) => typeof value === "function" || (Number.isFinite(value) && value > 0),
  },
  disableTTL: { initial: false, must: "be true or false", test: boolean },
  disableTouch: { initial: false, must: "be true or false", test: boolean },
  serializer: {
    initial: JSON,
    must: "have the methods parse and stringify",
    test: (value) => typeof value?.parse === "function" && typeof value.stringify === "function",
  },
  scanCount: { initial: 100, must: "be an integer from 1 to 1000000", test: integer(1, 1_000_000) },
  connectTimeoutMs: {
    initial: 5000,
    must: `be an integer from 1 to ${MAX_TIMER_MS}, in milliseconds`,
    test: integer(1, MAX_TIMER_MS),
  },
  commandTimeoutMs: {
    initial: 2000,
    must: `be an integer from 1 to ${MAX_TIMER_MS}, in milliseconds`,
    test: integer(1, MAX_TIMER_MS),
  },
  maxPending: { initial: 10_000, must: "be an integer from 1 to 10000000", test: integer(1, 10_000_000) },
  maxPendingBytes: {
    initial: 256 * 2 ** 20,
    must: "be an integer from 1 to 4294967296, in bytes",
    test: integer(1, 2 ** 32),
  },
  maxSessionBytes: {
    initial: 8 * 2 ** 20,
    must: "be an integer from 1 to 268435456, in bytes",
    test: integer(1, 2 ** 28),
  },
  resurrect: { initial: false, must: "be true or false", test: boolean },
  onConflict: {
    initial: "overwrite",
    must: 'be "overwrite", "merge", "error", or a function (base, mine, theirs) that returns a session',
    test: (value) => ["overwrite", "merge", "error"].includes(value) || typeof value === "function",
  },
  touchAfter: {
    initial: 0,
    must: "be a number of seconds, 0 or more",
    test: (value) => Number.isFinite(value) && value >= 0,
  },
  freshExpires: { initial: false, must: "be true or false", test: boolean },
  maxLifetime: {
    must: "be a positive number of seconds",
    test: (value) => Number.isFinite(value) && value > 0,
  },
  emitConnectionEvents: { initial: false, must: "be true or false", test: boolean },
}

/** Where the connection comes from: one of these. */
const SOURCES = ["client", "url", "nodes", "sentinel"]

/** What a client brings with it. */
const CONNECTION = ["tls", "username", "password", "credentials", "database", "clientName"]

/** What may hold a password, or is too large to show. */
const SECRET = new Set([...SOURCES, "password"])

/** connect-redis 3's own connection options, which every later major ignores beside a client. */
const RETIRED = new Set(["host", "port", "socket", "db", "pass", "logErrors", "unref", "retry_strategy"])

/**
 * Checks `options` and fills in the defaults. Null and undefined mean the default, and so does a
 * ttl of 0, as in connect-redis.
 */
function readOptions(options) {
  if (options === null || typeof options !== "object") {
    throw optionError(
      `RedisStore needs options, got ${shown(options)}; pass {client} with a Redis client or {url: "redis://..."}.`,
    )
  }
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(OPTIONS, name)) rejectUnknown(name, options)
  }
  const read = {}
  for (const [name, { initial, must, test }] of Object.entries(OPTIONS)) {
    const value = options[name]
    if (value == null || (name === "ttl" && value === 0)) {
      read[name] = initial
    } else if (test(value)) {
      read[name] = value
    } else {
      const got = SECRET.has(name) ? `a ${typeof value}` : shown(value)
      throw optionError(`Option "${name}" must ${must}, got ${got}.`)
    }
  }
  if (typeof read.ttl === "number" && read.touchAfter >= read.ttl) {
    throw optionError(
      `Option "touchAfter" must be less than "ttl", which is ${read.ttl} seconds, got ${read.touchAfter}: sessions in use would expire.`,
    )
  }
  const sources = SOURCES.filter((name) => read[name] !== undefined)
  if (sources.length !== 1) {
    throw optionError(
      `RedisStore needs one of the options "client" (a Redis client), "url" (redis://user:password@host:port/database), "nodes" (of a cluster) and "sentinel", got ${
        sources.length === 0 ? "none" : sources.join(" and ")
      }.`,
    )
  }
  const ignored = CONNECTION.find((name) => read[name] !== undefined)
  if (read.client !== undefined && ignored !== undefined) {
    throw optionError(`Option "${ignored}" does not go with a client, whose own setting is adopted; set it there.`)
  }
  return read
}

function rejectUnknown(name, options) {
  if (RETIRED.has(name)) {
    if (options.client != null || options.url != null) return
    throw optionError(
      `Option "${name}" is connect-redis 3's and opens no connection any more; pass {url: "redis://user:password@host:port/database"} or {client}.`,
    )
  }
  const nearest = Object.keys(OPTIONS).find((known) => distance(known.toLowerCase(), name.toLowerCase()) <= 2)
  throw optionError(
    `Option "${name}" is unknown; ${nearest ? `did you mean "${nearest}"?` : `known are ${Object.keys(OPTIONS).join(", ")}.`}`,
  )
}

/** Levenshtein's distance, by rows. */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]
}

module.exports = { readOptions, OPTIONS }
