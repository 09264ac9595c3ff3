"use strict"

const crypto = require("node:crypto")

/** A SHA-256 in base64url. */
const HASH_UNITS = 43
const HASH = /^[A-Za-z0-9_-]{43}$/

/** A request asks for the same id two or three times. */
const REMEMBERED_MAX = 4096
const remembered = new Map()

/** What stands for the session id `sid` in keys: also its handle, as others may know it. It opens no session. */
function hashId(sid) {
  const known = remembered.get(sid)
  if (known !== undefined) return known
  if (remembered.size >= REMEMBERED_MAX) remembered.clear()
  const hash = hashOf(sid)
  remembered.set(sid, hash)
  return hash
}

/** The SHA-256 of a text, in Base64 for URLs. */
function hashOf(text) {
  // At half the price of createHash, where there is one.
  if (crypto.hash !== undefined) return crypto.hash("sha256", text, "base64url")
  return crypto.createHash("sha256").update(text).digest("base64url")
}

let warned = false

/**
 * Whether the id `name` looks like the hash of one: its plain key could be the key of another session. Such an id
 * has one key, that of its hash. Warns once a process.
 */
function isAmbiguous(name) {
  if (!isHash(name)) return false
  if (warned) return true
  warned = true
  process.emitWarning(
    'A session id of 43 letters, digits, "-" and "_" was asked for: with the option "hashIds" as "prepare" or "migrate", sessions that are stored under such ids are not found. See docs/security.md.',
    { code: "CONNECT_REDIS_NATIVE_AMBIGUOUS_ID" },
  )
  return true
}

/** Whether `name`, what a key has behind its prefix, is the hash of an id and not an id. */
function isHash(name) {
  return name.length === HASH_UNITS && HASH.test(name)
}

module.exports = { HASH_UNITS, hashId, hashOf, isAmbiguous, isHash }
