"use strict"

const { promised } = require("../callbacks.js")
const { argumentError, kindOf } = require("../errors.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { isHash } = require("../sealing/hash.js")
const { parse } = require("../sessions.js")
const { now } = require("../timers.js")
const { handleOf, readEntry, userText } = require("./keys.js")

/** The number of sessions that are read or ended in one step. */
const PAGE = 500

/** Parses the reply to "entries". */
function entriesOf(reply) {
  const time = Number(reply.at(-1))
  const entries = []
  for (let at = 0; at + 1 < reply.length; at += 2) entries.push(readEntry(reply[at], reply[at + 1], time))
  return entries
}

/**
 * Reads the sessions in the index of a user. `mine` are sessions that belong to the user now. `pending` are
 * entries of a sign-in that may be between its two steps; `gone` are those whose session expired or was evicted. All
 * others are dropped, and `gone` too unless they are `needed`.
 */
async function look(store, inside, user, { handle, needed = false } = {}) {
  const { users } = inside
  const index = users.indexOf(user)
  const reply = await users.ask(OPERATIONS.entries, { index, handle })
  const entries = entriesOf(reply)
  const found = { index, aheadMs: Date.now() - Number(reply.at(-1)) / 1000, mine: [], pending: [], gone: [] }
  const stale = []
  for (let at = 0; at < entries.length; at += PAGE) {
    const some = entries.slice(at, at + PAGE)
    const sentAt = now()
    for (const [n, stored] of (await storedOf(inside, some)).entries()) {
      const entry = some[n]
      const owner = stored.text ? await ownerOf(store, inside, user, { ...stored, sentAt }) : undefined
      const mayComeYet = !entry.isWhole && entry.ageMs < 2 * users.commandTimeoutMs
      if (owner === user) found.mine.push(entry)
      else if (!stored.text) found[mayComeYet ? "pending" : "gone"].push(entry)
      else if (!mayComeYet) stale.push(entry)
    }
  }
  if (!needed) stale.push(...found.gone)
  // After an error, the entries are dropped when the index is next read.
  if (stale.length > 0) await users.ask(OPERATIONS.remove, { index, items: stale }).catch(() => {})
  return found
}

/** The stored values of these entries, as `{key, text}`. */
async function storedOf(inside, entries) {
  const keys = entries.map((entry) => inside.users.keysOf(entry))
  const texts = await textsOf(inside, keys.flat())
  const found = keys.map((each) => {
    const own = texts.splice(0, each.length)
    const at = Math.max(own.findIndex(Boolean), 0)
    return { key: each[at], text: own[at] }
  })
  // One that was moved to its hashed key between the reads of both.
  const moved = found.filter(({ text }, at) => !text && keys[at].length > 1)
  if (moved.length === 0) return found
  const again = await textsOf(
    inside,
    moved.map(({ key }) => key),
  )
  for (const [at, text] of again.entries()) moved[at].text = text
  return found
}

/** The texts of sessions. If they are too large for one reply, they are read in halves. */
async function textsOf(inside, keys) {
  try {
    return await ask((request) => inside.backend.mget(keys, request))
  } catch (error) {
    if (error.code !== "ERR_REDIS_STORE_DECODE" || keys.length === 1) throw error
    const half = Math.ceil(keys.length / 2)
    return [...(await textsOf(inside, keys.slice(0, half))), ...(await textsOf(inside, keys.slice(half)))]
  }
}

/** The user of a session; undefined if the session cannot be parsed, and so cannot be used. */
async function ownerOf(store, inside, user, { key, text, sentAt }) {
  const { guard, users, commandTimeoutMs } = inside
  let opened
  try {
    opened = guard.opened(key, text)
  } catch {
    return user
  }
  const sid = key.slice(store.prefix.length)
  const isHandle = users.handles && isHash(sid)
  const call = { store, sid, key, isHandle, sentAt, runInAsyncScope: (run) => run() }
  // It is opened already.
  call.sealing = guard
  try {
    const session = await promised((done) => {
      parse(call, opened, guard, commandTimeoutMs, (_call, error, parsed) => done(error, parsed))
    })
    return session === null ? undefined : users.userOf(session)
  } catch {
    return undefined
  }
}

/** Lists the existing sessions of a user. */
async function sessionsOf(store, inside, user, { current } = {}) {
  const own = current === undefined || current === null ? undefined : handleOf(current)
  const { users, backend } = inside
  const { index, mine, aheadMs } = await look(store, inside, userOf(inside, user))
  const leftOf = (key) => ask((request) => backend.send(OPERATIONS.pttl, key, "", 0, request))
  const left = await Promise.all(
    mine.map(async (entry) => {
      const [one, other = -2] = await Promise.all(users.keysOf(entry).map(leftOf))
      return one === -2 ? other : one
    }),
  )
  const date = (ms) => new Date(Math.round(ms))
  const sessions = mine.map((entry, at) => {
    const { handle, created, written, lifeMs } = entry
    const expires = left[at] < 0 ? undefined : Date.now() + left[at]
    // A session that was only touched since its entry was written has a later expiry.
    const touched = expires === undefined || lifeMs === undefined ? 0 : Math.min(expires - lifeMs, Date.now())
    return {
      handle,
      created: date(created + aheadMs),
      lastSeen: date(Math.max(written + aheadMs, touched)),
      expires: expires === undefined ? null : date(expires),
      info: users.infoOf(entry, index),
      current: handle === own,
    }
  })
  return sessions.filter((_session, at) => left[at] !== -2).toSorted((a, b) => b.lastSeen - a.lastSeen)
}

/** Ends the sessions of a user, except `except`. Returns their number. */
async function destroyUser(store, inside, user, { except } = {}) {
  const kept = except === undefined || except === null ? undefined : handleOf(except)
  const { index, mine, pending, gone } = await look(store, inside, userOf(inside, user), { needed: true })
  // Those that are gone too: a request that has loaded one before must not save it again.
  const items = [...mine, ...pending, ...gone].filter(({ handle }) => handle !== kept)
  let count = 0
  for (let at = 0; at < items.length; at += PAGE) {
    count += await inside.users.revoke(index, items.slice(at, at + PAGE))
  }
  return count
}

/** Ends one session of a user. Returns whether it existed. */
async function destroyOfUser(store, inside, user, handle) {
  if (typeof handle !== "string" || handle === "") {
    throw argumentError(`A handle must be a string that sessionsOf() has returned, got ${kindOf(handle)}.`)
  }
  const { index, mine, pending, gone } = await look(store, inside, userOf(inside, user), { handle, needed: true })
  return (await inside.users.revoke(index, [...mine, ...pending, ...gone])) > 0
}

/** The text of a user argument. */
function userOf({ users }, user) {
  if (users === undefined) throw argumentError('The sessions of a user need the option "userOf"; set it.')
  const text = userText(user, "A user")
  if (text === undefined) throw argumentError(`A user must be a string or a number, got ${kindOf(user)}.`)
  return text
}

module.exports = { destroyOfUser, destroyUser, entriesOf, look, sessionsOf }
