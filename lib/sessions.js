"use strict"

const { argumentError, decodeError, encodeError, kindOf, timeoutError } = require("./errors.js")
const { hasClonedTag, untagged } = require("./races/tag.js")
const { hashId } = require("./sealing/hash.js")
const { nextTick, now, withDeadline } = require("./timers.js")

const MAX_SID_BYTES = 4096

/** The key of a session id, or of its hash if `hashes`. Throws if it cannot be one. */
function keyOf(store, sid, hashes = false) {
  // As connect-redis: everything that a template string accepts, except values that cannot be an id.
  const text = typeof sid === "string" ? sid : textOf(sid)
  // All of them would have one hash. Without hashes the native half refuses it.
  if (hashes && !text.isWellFormed()) {
    throw argumentError(
      "A session id must be well-formed Unicode, got a lone surrogate; it would be the id of other sessions too.",
    )
  }
  if (text.length * 3 > MAX_SID_BYTES && Buffer.byteLength(text) > MAX_SID_BYTES) {
    throw argumentError(`A session id must be at most ${MAX_SID_BYTES} bytes, got ${Buffer.byteLength(text)} bytes.`)
  }
  return store.prefix + (hashes ? hashId(text) : text)
}

function textOf(sid) {
  if (typeof sid === "number" || typeof sid === "boolean" || typeof sid === "bigint") return String(sid)
  throw argumentError(`A session id must be a string, got ${sid === null ? "null" : `a ${typeof sid}`}.`)
}

/** The text of a session, of at most so many bytes. */
function serialize(store, session, maxBytes) {
  let value
  try {
    const { serializer } = store
    const leavesTagOut = serializer === JSON && !hasClonedTag(session)
    value = leavesTagOut ? serializer.stringify(session) : untagged(session, (it) => serializer.stringify(it))
  } catch (error) {
    throw encodeError("The session could not be serialized; the one stored before is untouched.", error)
  }
  if (typeof value !== "string" || value === "") {
    throw encodeError(
      `The serializer must make a text of the session, got ${value === "" ? "an empty one" : kindOf(value)}.`,
    )
  }
  if (value.length * 3 > maxBytes && Buffer.byteLength(value) > maxBytes) {
    throw encodeError(
      `A serialized session must be at most ${maxBytes} bytes (option "maxSessionBytes"), got ${Buffer.byteLength(value)}; the one stored before is untouched.`,
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
 * Calls `done(request, error, session)` once with the session that `stored` holds, stored under the key of `request`;
 * with null if it has outlived its lifetime. A parser that is async has what is left of the time.
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
  if (typeof then !== "function") return deliver(request, stored, session, guard, done)
  const late = () => timeoutError("The serializer did not parse the session", commandTimeoutMs)
  const left = request.startedAt === 0 ? commandTimeoutMs : request.startedAt + commandTimeoutMs - now()
  const settle = withDeadline(left, late, (error, value) => {
    request.runInAsyncScope(() => {
      if (error === null) deliver(request, stored, value, guard, done)
      else done(request, error, null)
    })
  })
  // A promise, as the application's may settle more than once.
  new Promise((resolve, reject) => then.call(session, resolve, reject)).then(
    (value) => nextTick(settle, null, value),
    (error) => nextTick(settle, decodeError(sid, error), null),
  )
}

function deliver(request, stored, session, guard, done) {
  const { store, sid, key } = request
  let lives
  try {
    if (typeof session !== "object") throw undefined
    lives = session === null || guard.read(session, key, stored, request.sentAt)
  } catch (error) {
    return done(request, decodeError(sid, error), null)
  }
  if (lives) return done(request, null, session)
  // It has outlived its lifetime, which may have been shortened since it was written. Whether it is
  // removed or not, it will not be got any more.
  if (request.isHandle) store.destroyHandle(sid, () => {})
  else store.destroy(sid, () => {})
  done(request, null, null)
}

/** `[error, session]` of a session whose key lives so much longer: its cookie says so. */
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
