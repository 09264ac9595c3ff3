"use strict"

const { argumentError, kindOf } = require("../errors.js")
const { HASH_UNITS, hashOf } = require("../sealing/hash.js")

/** The same as the name of a session whose id is hashed. */
function handleOf(sid) {
  return hashOf(String(sid))
}

/** The key of the index of a user, without the client's prefix. A sorted set stands beside it. */
function indexOf(userPrefix, user) {
  return `${userPrefix}{${hashOf(user)}}`
}

function expiryOf(index) {
  return `${index}:expiry`
}

/** What the keys of indexes start with by default: nothing that counts sessions finds them. */
function defaultUserPrefix(prefix) {
  // Empty braces would put the two keys of an index into two slots of a cluster.
  return `users:${prefix.replaceAll("{}", "")}`
}

/** Whether `key` is of an index. */
function isIndex(userPrefix, key) {
  if (!key.startsWith(userPrefix)) return false
  const rest = key.slice(userPrefix.length)
  return rest.length >= HASH_UNITS && /^\{[\w-]{43}\}(:expiry)?$/.test(rest)
}

/** A user as text; undefined if `user` is none. `what` has it. */
function userText(user, what) {
  // Half of a surrogate pair has no bytes of its own.
  if (typeof user === "string") return user === "" ? undefined : user.isWellFormed() ? user : user.toWellFormed()
  if (user === undefined || user === null || user === false) return undefined
  if (typeof user === "bigint" || (typeof user === "number" && Number.isFinite(user))) return String(user)
  throw argumentError(`${what} must be a string or a number, got ${kindOf(user)}.`)
}

/** What `src/users.rs` has entered. Times are in milliseconds, by the server's clock. */
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

module.exports = { defaultUserPrefix, expiryOf, handleOf, indexOf, isIndex, readEntry, userText }
