"use strict"

const { argumentError, decodeError, encodeError, kindOf, timeoutError } = require("./errors.js")
const { hasClonedTag, untagged } = require("./races/tag.js")
const { hashId, isHash } = require("./sealing/hash.js")
const { nextTick, now, withDeadline } = require("./timers.js")

const MAX_SID_BYTES = 4096

/**
 * The key of a session id, or of its hash if `hashes` is true. With "prepare", of its hash if the id itself has the form of one.
 * Throws if the id is not valid.
 */
function keyOf(store, sid, hashes = false) {
  // As connect-redis: everything that a template string accepts, except values that cannot be an id.
  const text = typeof sid === "string" ? sid : textOf(sid)
  if (text.length * 3 > MAX_SID_BYTES && Buffer.byteLength(text) > MAX_SID_BYTES) {
    throw argumentError(`A session id must be at most ${MAX_SID_BYTES} bytes, got ${Buffer.byteLength(text)} bytes.`)
  }
  const isHashed = hashes === true || (hashes === "prepare" && isHash(text))
  if (!isHashed) return store.prefix + text
  // All of them would have one hash. Without hashes the native half refuses it.
  if (!text.isWellFormed()) {
    throw argumentError(
      "A session id must be well-formed Unicode, got a lone surrogate; it would be the id of other sessions too.",
    )
  }
  return store.prefix + hashId(text)
}

function textOf(sid) {
  if (typeof sid === "number" || typeof sid === "boolean" || typeof sid === "bigint") return String(sid)
  throw argumentError(`A session id must be a string, got ${sid === null ? "null" : `a ${typeof sid}`}.`)
}

/** The text of a session, at most `maxBytes` long. */
function serialize(store, session, maxBytes) {
  let value
  try {
    const { serializer } = store
    const leavesTagOut = serializer === JSON && !hasClonedTag(session)
    value = leavesTagOut ? serializer.stringify(session) : untagged(session, (it) => serializer.stringify(it))
  } catch (error) {
    throw encodeError("The session could not be serialized; the stored session is unchanged.", error)
  }
  if (typeof value !== "string" || value === "") {
    throw encodeError(
      `The serializer must return a string that is not empty, got ${value === "" ? "an empty one" : kindOf(value)}.`,
    )
  }
  if (value.length * 3 > maxBytes && Buffer.byteLength(value) > maxBytes) {
    throw encodeError(
      `A serialized session must be at most ${maxBytes} bytes (option "maxSessionBytes"), got ${Buffer.byteLength(value)}; the stored session is unchanged.`,
    )
  }
  if (!value.isWellFormed()) {
    throw encodeError(
      "A serialized session must be well-formed Unicode, got a lone surrogate; it would be read back changed.",
    )
  }
  return value
}

/**
 * Calls `done(request, error, session)` once with the session in `stored`, the value of its key;
 * with null if its maximum lifetime is over. An async parser has the rest of the deadline.
 */
function parse(request, stored, guard, commandTimeoutMs, done) {
  const { store, sid, key } = request
  let session
  let then
  let text = stored
  try {
    if (request.sealing === undefined) text = guard.opened(key, stored)
  } catch (error) {
    return done(request, error, null)
  }
  try {
    session = store.serializer.parse(text)
    then = session?.then
  } catch (error) {
    return done(request, decodeError(sid, error), null)
  }
  if (typeof then !== "function") deliver(request, stored, session, guard, done)
  else awaitParsed(request, stored, session, then, guard, commandTimeoutMs, done)
}

/** The same for what an async parser returns. A function of its own, because closures make every call allocate. */
function awaitParsed(request, stored, session, then, guard, commandTimeoutMs, done) {
  const { sid } = request
  const late = () => timeoutError("The serializer did not parse the session", commandTimeoutMs)
  const left = request.startedAt === undefined ? commandTimeoutMs : request.startedAt + commandTimeoutMs - now()
  const settle = withDeadline(left, late, (error, value) => {
    request.runInAsyncScope(() => {
      if (error === null) deliver(request, stored, value, guard, done)
      else done(request, error, null)
    })
  })
  // A promise of our own, because the application's thenable may settle more than once.
  new Promise((resolve, reject) => then.call(session, resolve, reject)).then(
    (value) => nextTick(settle, null, value),
    (error) => nextTick(settle, decodeError(sid, error), null),
  )
}

function deliver(request, stored, session, guard, done) {
  const { store, sid } = request
  let lives
  try {
    if (typeof session !== "object") throw undefined
    lives = session === null || guard.read(session, request, stored)
  } catch (error) {
    return done(request, decodeError(sid, error), null)
  }
  if (lives) return done(request, null, session)
  // The maximum lifetime is over; the option may have been lowered since the session was written. An error is
  // ignored: `get` no longer returns the session in any case.
  if (request.isHandle) store.destroyHandle(sid, () => {})
  else store.destroy(sid, () => {})
  done(request, null, null)
}

/** `[error, session]` of a session whose key expires in `livesMs`, with its cookie set to that time. */
function refreshed(sid, session, livesMs) {
  try {
    const { cookie } = session ?? {}
    if (livesMs > 0 && cookie?.expires) {
      const expires = new Date(Date.now() + livesMs)
      const text = expires.toISOString()
      cookie.expires = typeof cookie.expires === "string" ? text : expires
    }
    return [null, session]
  } catch (error) {
    return [decodeError(sid, error), null]
  }
}

module.exports = { keyOf, parse, refreshed, serialize }
