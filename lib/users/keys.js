"use strict"

const { argumentError, kindOf } = require("../errors.js")
const { HASH_UNITS, hashOf } = require("../sealing/hash.js")

/** The public handle of a session, which cannot be used as a session id. With hashed ids it is the name in Redis. */
function handleOf(sid) {
  return hashOf(String(sid))
}

/** The key of a user's index, without the client's prefix. */
function indexOf(userPrefix, user) {
  return `${userPrefix}{${hashOf(user)}}`
}

/** The default prefix of index keys, which is outside the prefix of the sessions. */
function defaultUserPrefix(prefix) {
  return `users:${prefix}`
}

/** Whether `key` belongs to an index. */
function isIndex(userPrefix, key) {
  if (!key.startsWith(userPrefix)) return false
  const rest = key.slice(userPrefix.length)
  return rest.length >= HASH_UNITS && /^\{[\w-]{43}\}$/.test(rest)
}

/** A user id as text; undefined if there is none. `what` names the value in the error. */
function userText(user, what) {
  // A lone surrogate has no UTF-8 encoding.
  if (typeof user === "string") return user === "" ? undefined : user.isWellFormed() ? user : user.toWellFormed()
  if (user === undefined || user === null || user === false) return undefined
  if (typeof user === "bigint" || (typeof user === "number" && Number.isFinite(user))) return String(user)
  throw argumentError(`${what} must be a string or a number, got ${kindOf(user)}.`)
}

/** Parses an entry that `src/users.rs` has written. Times are in milliseconds, by the server's clock. */
function readEntry(handle, entry, now) {
  const [created, written, life, kind] = entry.split(":", 4)
  const begin = created.length + written.length + life.length + kind.length + 4
  const { key, info, sealed } = JSON.parse(entry.slice(begin))
  return {
    handle,
    entry,
    key,
    info,
    sealed,
    created: created / 1000,
    written: written / 1000,
    lifeMs: life === "" ? undefined : Number(life),
    /** It was written in one step with its session. */
    isWhole: kind === "a",
    ageMs: (now - written) / 1000,
  }
}

module.exports = { defaultUserPrefix, handleOf, indexOf, isIndex, readEntry, userText }
