"use strict"

const { createHash } = require("node:crypto")

/** The error of a failed request: `code` is one of `ERR_REDIS_STORE_*`. */
class RedisStoreError extends Error {
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
}
Object.defineProperty(RedisStoreError.prototype, "name", {
  value: "RedisStoreError",
  configurable: true,
  writable: true,
})

/** A mistake in the code that uses the store. A TypeError, as connect-redis throws. */
function optionError(message) {
  return Object.assign(new TypeError(message), { code: "ERR_REDIS_STORE_OPTIONS" })
}

/** A request that cannot be made because of its arguments. */
function argumentError(message, cause) {
  return new RedisStoreError("ERR_REDIS_STORE_OPTIONS", message, cause)
}

/** A session that cannot be written. */
function encodeError(message, cause) {
  return new RedisStoreError("ERR_REDIS_STORE_ENCODE", message, cause)
}

/** The error for a value that the function `what` threw. The message of a falsy value shows it. */
function thrownError(what, thrown) {
  // Callers would take a falsy error for success.
  return thrown || argumentError(`${what} threw ${String(thrown)}; throw an Error.`)
}

function closedError() {
  return new RedisStoreError("ERR_REDIS_STORE_CLOSED", "The store is closed; create a new RedisStore.")
}

function timeoutError(what, ms) {
  return new RedisStoreError("ERR_REDIS_STORE_TIMEOUT", `${what} within ${ms} ms (option "commandTimeoutMs").`)
}

function fullError(pending, option) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_QUEUE_FULL",
    `${pending} are pending already (option "${option}"); requests arrive faster than Redis answers.`,
  )
}

function callbackError(got) {
  return optionError(`The callback must be a function, got ${kindOf(got)}.`)
}

/** A wrong value in the form that a message may show. Only for values that are not secret. */
function shown(value) {
  if (typeof value !== "string" || /:\/\/|@/.test(value)) return kindOf(value)
  return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
}

/** The kind of a wrong value, without the contents of a text. */
function kindOf(value) {
  if (Array.isArray(value)) return "an array"
  switch (typeof value) {
    case "string":
    case "function":
    case "symbol":
      return `a ${typeof value}`
    case "object":
      return value === null ? "null" : "an object"
    default:
      return String(value)
  }
}

/** A session id in the form that a message may show: a short hash, which cannot be used as an id. */
function sidHash(sid) {
  return createHash("sha256").update(String(sid)).digest("hex").slice(0, 8)
}

/** A SyntaxError of JSON.parse quotes the text, which is a session, so it is not the cause. */
function decodeError(sid, error) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_DECODE",
    `The stored value of session ${sidHash(sid)} (hash of its id) is not a session that the serializer can parse; destroy it, or set the serializer that wrote it.`,
    error?.name === "SyntaxError" ? undefined : error,
  )
}

module.exports = {
  RedisStoreError,
  argumentError,
  callbackError,
  closedError,
  decodeError,
  encodeError,
  fullError,
  kindOf,
  optionError,
  shown,
  sidHash,
  thrownError,
  timeoutError,
}
