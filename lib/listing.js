"use strict"

const { promised } = require("./callbacks.js")
const { argumentError, decodeError, kindOf } = require("./errors.js")
const { OPERATIONS } = require("./operations.js")
const { ask } = require("./request.js")
const { hashId, isHash } = require("./sealing/hash.js")
const { parse } = require("./sessions.js")
const { nextTurn, now } = require("./timers.js")

/** The number of sessions in the first page of all(), and the maximum of a page. */
const PAGE_FIRST = 16
const PAGE_MAX = 500
/** The target size of a page in characters, estimated from the page before. */
const PAGE_UNITS = 8 * 2 ** 20

/** Runs an operation on all keys of the store, except indexes of users that start with its prefix. */
function about(store, { backend, users }, operation) {
  const userPrefix = users?.userPrefix ?? ""
  const others = userPrefix.startsWith(store.prefix) ? `+${userPrefix.slice(store.prefix.length)}` : ""
  return ask((request) => backend.send(operation, store.prefix, others, store.scanCount, request))
}

async function clear(store, inside) {
  const startedAt = now()
  const count = await about(store, inside, OPERATIONS.clear)
  // Leftover entries are dropped when the index is next read; the index itself expires with its last entry.
  await inside.users?.clear(startedAt).catch(() => {})
  return count
}

async function length(store, inside) {
  // A session that is being moved has two keys.
  if (inside.migrates || inside.prepares) return (await sessionNames(store, inside)).length
  return about(store, inside, OPERATIONS.length)
}

/** The ids of all sessions; with hashed ids their handles. */
async function ids(store, inside) {
  const found = await sessionNames(store, inside)
  return inside.migrates ? found.map(handleOf) : found
}

/** What one key of each session has behind its prefix: that of its hash, where it has two. */
async function sessionNames(store, inside) {
  const found = await names(store, inside)
  if ((!inside.migrates && !inside.prepares) || !found.some(isHash)) return found
  const all = new Set(found)
  return found.filter((name) => isHash(name) || !all.has(hashId(name)))
}

/** What stands for a session whose key is its prefix and `name`. */
function handleOf(name) {
  return isHash(name) ? name : hashId(name)
}

/** Ends the session of a handle, and returns whether there was one. */
async function destroyHandle(store, inside, handle) {
  if (typeof handle !== "string" || !isHash(handle)) {
    const got = typeof handle === "string" ? "another text" : kindOf(handle)
    throw argumentError(`A handle must be a string that ids(), all() or sessionsOf() has returned, got ${got}.`)
  }
  if (!inside.handles) {
    throw argumentError('A session is destroyed by its handle alone only with the option "hashIds"; pass its user too.')
  }
  const { backend, users } = inside
  const destroy = (name, sid) => {
    const key = store.prefix + name
    return ask((request) => {
      request.sid = sid
      const send = () => backend.destroy(key, store.prefix, request)
      if (users === undefined) send()
      else users.destroy(Object.assign(request, { key }), send, handle)
    })
  }
  const count = await destroy(handle)
  if (!inside.migrates && !inside.prepares) return count > 0
  // Its key may still be its id. If there is none it may have been moved before that was looked for.
  const sid = (await names(store, inside)).find((each) => !isHash(each) && hashId(each) === handle)
  const name = sid === undefined || inside.migrates ? handle : sid
  return count + (await destroy(name, sid)) > 0
}

/** What the keys have behind their prefix, page by page, so that other work of the event loop comes in between. */
async function names(store, inside) {
  const found = []
  for (const page of await about(store, inside, OPERATIONS.ids)) {
    if (found.length > 0) await nextTurn()
    for (const sid of JSON.parse(page)) found.push(sid)
  }
  return found
}

/** Every session, in pages of limited size, so that the event loop can do other work in between. */
async function all(store, inside) {
  const { backend } = inside
  // close() waits for all pages.
  backend.keep()
  try {
    return await pages(store, inside)
  } finally {
    backend.release()
  }
}

async function pages(store, inside) {
  const found = await sessionNames(store, inside)
  const sessions = []
  const corrupt = []
  let size = PAGE_FIRST
  for (let at = 0; at < found.length;) {
    const some = found.slice(at, at + size)
    const sentAt = now()
    const texts = await textsOf(store, inside, some)
    if (texts === undefined) {
      size = Math.ceil(some.length / 2)
      continue
    }
    at += some.length
    const stored = [...texts.entries()].filter(([, text]) => text !== null && text !== "")
    const counting = new Counting(inside.guard)
    const counted = { ...inside, guard: counting }
    for (let next = 0; next < stored.length;) {
      if (next > 0) await nextTurn()
      const most = counting.units + PAGE_UNITS
      const parsing = []
      // In parallel, because an async parser may take long; in portions, because expanded texts may be far longer.
      while (next < stored.length && counting.units < most) {
        const [n, text] = stored[next++]
        parsing.push(parsed(store, counted, { sid: some[n], text, sentAt }, corrupt))
      }
      for (const session of await Promise.all(parsing)) if (session !== null) sessions.push(session)
    }
    const { units } = counting
    const fitting = Math.floor((PAGE_UNITS * some.length) / Math.max(units, 1))
    size = Math.max(1, Math.min(PAGE_MAX, size * 4, fitting))
  }
  warnOfCorrupt(corrupt)
  return sessions
}

/** A guard that adds up the lengths of the texts that it opens. */
class Counting {
  units = 0
  #guard

  constructor(guard) {
    this.#guard = guard
  }

  opened(key, stored) {
    const text = this.#guard.opened(key, stored)
    this.units += text.length
    return text
  }

  read(...args) {
    return this.#guard.read(...args)
  }
}

/** The texts of these sessions; undefined if there are several and they are too large for one reply. */
async function textsOf(store, { backend }, some) {
  const keys = some.map((sid) => store.prefix + sid)
  try {
    return await ask((request) => {
      request.follows = true
      backend.mget(keys, request)
    })
  } catch (error) {
    if (error.code === "ERR_REDIS_STORE_DECODE" && some.length > 1) return undefined
    throw error
  }
}

/**
 * One session of all(), with its session id unless it has an `id` of its own. Null for a corrupt value, whose
 * error is added to `corrupt`.
 */
async function parsed(store, inside, { sid, text, sentAt }, corrupt) {
  const { guard, commandTimeoutMs } = inside
  const call = { store, sid, key: store.prefix + sid, sentAt, runInAsyncScope: (run) => run() }
  call.isHandle = inside.handles && isHash(sid)
  const id = inside.migrates ? handleOf(sid) : sid
  try {
    if (text.trim() === "null") throw decodeError(sid)
    const session = await promised((done) => {
      parse(call, text, guard, commandTimeoutMs, (_call, error, parsedSession) => done(error, parsedSession))
    })
    if (session === null || Object.hasOwn(session, "id")) return session
    if (Object.isExtensible(session)) return Object.assign(session, { id })
    return Object.assign(Object.create(Object.getPrototypeOf(session)), session, { id })
  } catch (error) {
    corrupt.push(error)
    return null
  }
}

/** One warning for all corrupt sessions. */
function warnOfCorrupt(errors) {
  if (errors.length === 0) return
  const [{ message }] = errors
  const text =
    errors.length === 1 ? `a session: ${message}` : `${errors.length} sessions, the first for this: ${message}`
  process.emitWarning(`all() skips ${text}`, { code: "CONNECT_REDIS_NATIVE_CORRUPT_SESSION" })
}

module.exports = { all, clear, destroyHandle, ids, length, names }
