"use strict"

const { kindOf, optionError, shown } = require("../errors.js")

const MAX_TIMER_MS = 2 ** 31 - 1
const SCAN_COUNT_MAX = 1_000_000

const boolean = (value) => typeof value === "boolean"
const integer = (min, max) => (value) => Number.isInteger(value) && value >= min && value <= max

const positive = integer(1, 2 ** 31 - 1)

/** Converts a numeric text, such as an environment variable, to a number; returns any other value unchanged. */
const numeric = (value) => (typeof value === "string" && value.trim() !== "" ? numberOf(value) : value)
const numberOf = (text) => (Number.isNaN(Number(text)) ? text : Number(text))
/** Reads a count as connect-redis does: rounded down and limited. */
const count = (value) => {
  const number = numeric(value)
  return Number.isFinite(number) && number >= 1 ? Math.min(Math.floor(number), SCAN_COUNT_MAX) : number
}
/** Converts a prefix to text, as a template string does. */
const text = (value) => (["number", "boolean", "bigint"].includes(typeof value) ? String(value) : value)

/**
 * Every option: its default, its requirement as text and as a test, and the function that reads a value first.
 * Values that connect-redis accepts are read as connect-redis reads them.
 */
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
  prefix: { initial: "sess:", must: "be a string", read: text, test: (value) => typeof value === "string" },
  ttl: {
    initial: 86400,
    must: "be a positive number of seconds, or a function of the session that returns one; for sessions that never expire set disableTTL",
    read: numeric,
    test: (value) => typeof value === "function" || (Number.isFinite(value) && value > 0),
  },
  disableTTL: { initial: false, must: "be true or false", read: Boolean, test: boolean },
  disableTouch: { initial: false, must: "be true or false", read: Boolean, test: boolean },
  serializer: {
    initial: JSON,
    must: "have the methods parse and stringify",
    test: (value) => typeof value?.parse === "function" && typeof value.stringify === "function",
  },
  scanCount: { initial: 100, must: "be an integer from 1 to 1000000", read: count, test: integer(1, SCAN_COUNT_MAX) },
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
  maxPending: {
    initial: 10_000,
    must: "be an integer from 1 to 10000000",
    read: numeric,
    test: integer(1, 10_000_000),
  },
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
  onDestroyed: {
    initial: "skip",
    must: 'be "skip", "error" or "save"',
    test: (value) => ["skip", "error", "save"].includes(value),
  },
  tagSessions: { initial: false, must: "be true or false", test: boolean },
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
  hashIds: {
    initial: false,
    must: 'be true, false, "migrate" or "prepare"',
    test: (value) => boolean(value) || value === "migrate" || value === "prepare",
  },
  encryption: {
    must: 'be {keys, plaintext} with keys, or a function or promise of them, and "accept", "reject" or "write"',
    test: isEncryption,
  },
  compression: {
    must: "be {minBytes} with an integer from 1 to 268435456, in bytes",
    test: (value) => isObject(value) && integer(1, 2 ** 28)(value.minBytes),
  },
  emitConnectionEvents: { initial: false, must: "be true or false", test: boolean },
  userOf: {
    must: "be a function of the session that returns its user",
    test: (value) => typeof value === "function",
  },
  userPrefix: {
    must: "be a string that is not empty",
    test: (value) => typeof value === "string" && value !== "",
  },
  sessionInfo: {
    must: "be a function of the session and the request that returns an object",
    test: (value) => typeof value === "function",
  },
  maxSessionsPerUser: {
    must: 'be a positive integer, or {max, onLimit} with a positive integer and "end-oldest" or "reject"',
    test: (value) => positive(value) || (positive(value?.max) && ["end-oldest", "reject"].includes(value.onLimit)),
  },
}

/** The members of options whose values are objects. */
const MEMBERS = { encryption: ["keys", "plaintext"], compression: ["minBytes"] }

/** Options that need `userOf`. */
const OF_USERS = ["userPrefix", "sessionInfo", "maxSessionsPerUser"]

/** The source of the connection: exactly one of these. */
const SOURCES = ["client", "url", "nodes", "sentinel"]

/** Options whose values come from the client, if there is one. */
const CONNECTION = ["tls", "username", "password", "credentials", "database", "clientName"]

/** Connection options: a wrong value may contain a password. */
const SECRET = new Set([...SOURCES, ...CONNECTION])

/** Texts that stand for true or false. */
const FLAGS = new Set(["yes", "no", "on", "off", "true", "false", "1", "0"])

/** connect-redis 3's own connection options. */
const RETIRED = new Set(["host", "port", "socket", "db", "pass"])

/** For these options, connect-redis takes false, 0 and an empty text as the default. */
const OR_DEFAULT = new Set(["ttl", "scanCount", "serializer"])

/** Option names that a process warning has already reported. */
const warned = new Set()

/**
 * Checks `options` and fills in the defaults. Null and undefined mean the default, and so do a ttl and a
 * scanCount of 0, as in connect-redis. Unknown options, and connection options beside a client, are ignored
 * with a process warning.
 */
function readOptions(options) {
  if (options === null || typeof options !== "object") {
    throw optionError(
      `RedisStore needs options, got ${kindOf(options)}; pass {client} with a Redis client or {url: "redis://..."}.`,
    )
  }
  const hasClient = optionOf(options, "client") != null
  const ignored = Object.keys(options).filter((name) => !Object.hasOwn(OPTIONS, name))
  const read = {}
  for (const [name, { initial, must, read: readAs, test }] of Object.entries(OPTIONS)) {
    const given = optionOf(options, name)
    if (given == null || (OR_DEFAULT.has(name) && !given && !Number.isNaN(given))) {
      read[name] = initial
      continue
    }
    if (hasClient && name !== "client" && SECRET.has(name)) {
      ignored.push(name)
      continue
    }
    const value = readAs === undefined ? given : readAs(given)
    if (!test(value)) {
      throw optionError(`Option "${name}" must ${must}, got ${shownOption(name, given)}.`)
    }
    demandMembers(name, value)
    read[name] = value
  }
  if (typeof read.ttl === "number" && read.touchAfter >= read.ttl) {
    throw optionError(
      `Option "touchAfter" must be less than "ttl", which is ${read.ttl} seconds, got ${read.touchAfter}: sessions in use would expire.`,
    )
  }
  const orphan = OF_USERS.find((name) => read[name] !== undefined)
  if (orphan !== undefined && read.userOf === undefined) {
    throw optionError(`Option "${orphan}" needs the option "userOf", got none; set it, or leave "${orphan}" out.`)
  }
  demandOneSource(read, options)
  warnOfIgnored(ignored, hasClient)
  return read
}

/** Refuses unknown members of these options: a typing error would leave sessions unprotected. */
function demandMembers(name, value) {
  const known = MEMBERS[name]
  if (known === undefined) return
  const unknown = Object.keys(value).find((member) => !known.includes(member))
  if (unknown === undefined) return
  throw optionError(
    `Option "${name}" must have no other members than ${known.map((member) => `"${member}"`).join(" and ")}, got ${shown(unknown)}; correct its name, or remove it.`,
  )
}

/** A wrong value in the form that a message may show. */
function shownOption(name, value) {
  if (name === "clientName" || (name === "database" && typeof value === "number")) return shown(value)
  if (name === "tls" && FLAGS.has(value)) return shown(value)
  // A wrong value of it may be a key.
  if (name === "encryption") return kindOf(value)
  return SECRET.has(name) ? `a ${typeof value}` : shown(value)
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** The keys themselves are looked at when they are used. */
function isEncryption(value) {
  if (!isObject(value) || ArrayBuffer.isView(value)) return false
  const { keys, plaintext } = value
  const isLater = typeof keys === "function" || typeof keys?.then === "function"
  return (isLater || Array.isArray(keys)) && ["accept", "reject", "write"].includes(plaintext ?? "accept")
}

/** The value of an option, own or inherited. Properties of Object.prototype do not count. */
function optionOf(options, name) {
  for (let at = options; at !== null && !isRoot(at); at = Object.getPrototypeOf(at)) {
    if (Object.hasOwn(at, name)) return options[name]
  }
  return undefined
}

/** Object.prototype, of this realm or another. */
function isRoot(object) {
  return Object.getPrototypeOf(object) === null && Object.hasOwn(object, "hasOwnProperty")
}

function demandOneSource(read, options) {
  const sources = SOURCES.filter((name) => read[name] !== undefined)
  if (sources.length === 1) return
  const retired = Object.keys(options).find((name) => RETIRED.has(name))
  if (sources.length === 0 && retired !== undefined) {
    throw optionError(
      `Option "${retired}" is an option of connect-redis 3 and is no longer supported; pass {url: "redis://user:password@host:port/database"} or {client}.`,
    )
  }
  throw optionError(
    `RedisStore needs one of the options "client" (a Redis client), "url" (redis://user:password@host:port/database), "nodes" (of a cluster) and "sentinel", got ${
      sources.length === 0 ? "none" : sources.join(" and ")
    }.`,
  )
}

/** Emitted once per process for each name. */
function warnOfIgnored(names, hasClient) {
  const unheard = names.filter((name) => !warned.has(name))
  if (unheard.length === 0) return
  for (const name of unheard) warned.add(name)
  const why = unheard.map((name) => `"${name}" ${reason(name, hasClient)}`).join("; ")
  const noun = unheard.length === 1 ? "Option" : "Options"
  process.emitWarning(`${noun} ignored by RedisStore: ${why}.`, { code: "CONNECT_REDIS_NATIVE_IGNORED_OPTION" })
}

function reason(name, hasClient) {
  if (hasClient && (SECRET.has(name) || RETIRED.has(name))) {
    return "is a setting of the client; set it there"
  }
  const nearest = Object.keys(OPTIONS).find((known) => distance(known.toLowerCase(), name.toLowerCase()) <= 2)
  return nearest === undefined ? "is unknown; remove it" : `is unknown; did you mean "${nearest}"?`
}

/** The Levenshtein distance, computed row by row. */
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
