"use strict"

const { createHash } = require("node:crypto")

/** What every request fails with: `code` is one of `ERR_REDIS_STORE_*`. */
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

/** A request that cannot be made, for what it was given. */
function argumentError(message, cause) {
  return new RedisStoreError("ERR_REDIS_STORE_OPTIONS", message, cause)
}

/** A session that cannot be written. */
function encodeError(message, cause) {
  return new RedisStoreError("ERR_REDIS_STORE_ENCODE", message, cause)
}

/** A wrong value as a message may show it. */
function shown(value) {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  }
  if (typeof value === "function") return "a function"
  if (Array.isArray(value)) return "an array"
  if (typeof value === "object" && value !== null) return "an object"
  return String(value)
}

/** A session id as a message may show it: enough to find it again, useless to steal it. */
function sidHash(sid) {
  return createHash("sha256").update(String(sid)).digest("hex").slice(0, 8)
}

/** A SyntaxError of JSON.parse quotes the text, which is a session: it stays out. */
function decodeError(sid, error) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_DECODE",
    `The stored value of session ${sidHash(sid)} (hash of its id) is not a session that the serializer can parse; destroy it, or set the serializer that wrote it.`,
    error instanceof SyntaxError ? undefined : error,
  )
}

module.exports = { RedisStoreError, argumentError, decodeError, encodeError, optionError, shown, sidHash }
