"use strict"

const { optionError } = require("../errors.js")
const { readTls } = require("./tls.js")

const DEFAULT_PORT = 6379
const SHAPE = "redis://user:password@host:port/database, rediss:// for TLS, or redis+unix:///path?db=database"
/** Whether a protocol is TLS. */
const PROTOCOLS = { redis: false, rediss: true, valkey: false, valkeys: true }

/** Schemes that a message may show; any other text may be a password. */
const SCHEMES = new Set(["http", "https", "localhost", "redis-cluster", "redis-sentinel", "tcp", "valkey", "valkeys"])

/** The connection settings in a Redis URL. Messages show no part of it, because it may contain a password. */
function readUrl(url) {
  let parsed
  try {
    parsed = new URL(url)
  } catch {
    throw optionError(`Option "url" must be a URL such as ${SHAPE}, got one that cannot be parsed.`)
  }
  if (parsed.hash !== "" || /@/.test(parsed.pathname + parsed.search)) {
    throw optionError(
      'Option "url" has a "#", or an "@" after the host; percent-encode special characters in user and password.',
    )
  }
  const protocol = parsed.protocol.slice(0, -1)
  const credentials = {
    username: decoded(parsed.username),
    password: decoded(parsed.password),
  }
  if (protocol === "redis+unix" || protocol === "unix") {
    allowParameters(parsed, ["db"])
    if (parsed.pathname.length < 2) throw optionError(`Option "url" must name a path, as in ${SHAPE}.`)
    return {
      nodes: [{ path: decoded(parsed.pathname) }],
      ...credentials,
      database: database(parsed.searchParams.get("db") ?? ""),
    }
  }
  if (!Object.hasOwn(PROTOCOLS, protocol)) {
    throw optionError(
      `Option "url" must begin as in ${SHAPE}, got ${SCHEMES.has(protocol) ? `"${protocol}:"` : "something else"}.`,
    )
  }
  allowParameters(parsed, ["family"])
  const path = parsed.pathname.replace(/^\/|\/$/g, "")
  return {
    nodes: [
      {
        host: decoded(parsed.hostname.replace(/^\[(.*)\]$/, "$1")) || "localhost",
        port: parsed.port === "" ? DEFAULT_PORT : Number(parsed.port),
      },
    ],
    ...credentials,
    database: database(path),
    family: family(parsed.searchParams.get("family")),
    tls: PROTOCOLS[protocol] ? readTls({}) : undefined,
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text) || undefined
  } catch {
    throw optionError(`Option "url" has a "%" that is not part of an escape; write it as %25.`)
  }
}

function database(text) {
  if (text === "") return undefined
  const number = Number(text)
  if (!/^\d*$/.test(text) || !Number.isSafeInteger(number) || number > 0x7fffffff) {
    throw optionError(`Option "url" must end in a database number, got something else.`)
  }
  return number
}

function family(text) {
  if (text === null || text === "" || text === "0") return undefined
  if (text !== "4" && text !== "6") throw optionError('Option "url" must have the family 4, 6 or 0, got another one.')
  return Number(text)
}

function allowParameters(parsed, allowed) {
  for (const name of parsed.searchParams.keys()) {
    if (!allowed.includes(name)) {
      throw optionError(`Option "url" has an unknown parameter; remove it.`)
    }
  }
}

module.exports = { readUrl, DEFAULT_PORT }
