"use strict"

const { isNumberObject } = require("node:util").types

const { argumentError, shown, thrownError } = require("../errors.js")

/** Stands for "no expiry" where milliseconds to live are expected. */
const FOR_EVER = -1

/** The format of express-session and most others: recognized without the slower test below. */
const ISO_8601 = /^\d{4}-\d\d-\d\d/

const WORDS = [
  "Jan(?:uary)? Feb(?:ruary)? Mar(?:ch)? Apr(?:il)? May June? July? Aug(?:ust)? Sep(?:tember)? Oct(?:ober)?",
  "Nov(?:ember)? Dec(?:ember)? (?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?",
  "[AP]M GMT UTC [ECMP][SD]T T Z",
].flatMap((words) => words.split(" "))

/**
 * Dates as text, such as those of ISO 8601, HTTP and Date's own methods: a year of four or six digits among the
 * words of a date. V8 also parses texts such as "garbage 1".
 */
const DATE = new RegExp(`^(?=.*\\d{4})(?:[\\d\\s.,:/+-]|\\([^()]*\\)|(?<![a-z])(?:${WORDS.join("|")})(?![a-z]))+$`, "i")

/**
 * The lifetime of a session in milliseconds: the result of the ttl function; otherwise the time until
 * `cookie.expires`; otherwise `ttl`. A `cookie.expires` that is not a date is ignored.
 */
function ttlMs(store, session) {
  const { ttl } = store
  // The field `ttl` accepts every value of the option.
  let seconds = secondsOf(ttl)
  if (typeof ttl === "function") {
    try {
      seconds = secondsOf(ttl.call(store, session))
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

/** Converts a number as text, such as an environment variable, or a bigint to a number. */
function secondsOf(value) {
  if (typeof value === "number") return value
  if (typeof value === "string" && value.trim() === "") return value
  return ["string", "bigint"].includes(typeof value) || isNumberObject(value) ? Number(value) : value
}

/** The time of a `cookie.expires`; undefined if it is not a date, such as "" or "garbage 1", which V8 parses as a date. */
function timeOf(expires) {
  if (!expires || typeof expires === "boolean") return undefined
  const value =
    typeof expires === "string" && (ISO_8601.test(expires) || DATE.test(expires))
      ? Date.parse(expires)
      : expires.valueOf()
  return typeof value === "number" && Number.isFinite(value) ? value : undefined
}

module.exports = { FOR_EVER, ttlMs }
