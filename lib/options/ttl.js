"use strict"

const { argumentError, shown, thrownError } = require("../errors.js")

/** No end, where milliseconds to live are asked for. */
const FOR_EVER = -1

/** Dates as text: ISO 8601, and those of HTTP and of Date's own toString. */
const DATE = /^(\d{4}-\d\d-\d\d|[A-Z][a-z]{2},? )/

/**
 * How long a session is to live, in milliseconds: what the ttl function says; else until
 * `cookie.expires`, as express-session has it; else `ttl`. A `cookie.expires` that is no date
 * counts as none.
 */
function ttlMs(store, session) {
  const { ttl } = store
  // The field may be set to what the option takes.
  let seconds = typeof ttl === "string" ? Number(ttl) : ttl
  if (typeof ttl === "function") {
    try {
      seconds = ttl.call(store, session)
    } catch (error) {
      throw thrownError('The function of the option "ttl"', error)
    }
  } else {
    const at = timeOf(session?.cookie?.expires)
    if (at !== undefined) return Math.ceil(at - Date.now())
  }
  if (!Number.isFinite(seconds)) {
    throw argumentError(
      `Option "ttl" must ${typeof ttl === "function" ? "return" : "be"} a finite number of seconds, got ${shown(seconds)}.`,
    )
  }
  return Math.min(Math.ceil(seconds * 1000), Number.MAX_SAFE_INTEGER)
}

/** The time that a `cookie.expires` says; undefined for what is none, such as "" or "garbage 1", which V8 takes for a date. */
function timeOf(expires) {
  if (!expires || typeof expires === "boolean") return undefined
  const value = typeof expires === "string" && DATE.test(expires) ? Date.parse(expires) : expires.valueOf()
  return typeof value === "number" && Number.isFinite(value) ? value : undefined
}

module.exports = { FOR_EVER, ttlMs }
