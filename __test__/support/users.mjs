// Helpers of the tests of the sessions of users.
import assert from "node:assert/strict"
import { createRequire } from "node:module"

const { handleOf } = createRequire(import.meta.url)("../../lib/users/keys.js")

export const userOf = (session) => session.user
export const cookie = (ms = 3_600_000) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })

/** Saves a new session of `user`. */
export function signIn(store, sid, user, ms) {
  return store.set(sid, { cookie: cookie(ms), user })
}

/** A stored session as express-session creates it, or null. */
export async function load(store, sid) {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

/** The keys of indexes. */
export async function indexKeys(client, userPrefix) {
  const keys = await client.keys(`${userPrefix.replace(/[*?[\]\\]/g, "\\$&")}*`)
  return keys.filter((key) => /\{[\w-]{43}\}$/.test(key)).toSorted()
}

/** The number of indexes whose entries are all older than `ms`. */
export async function entries(client, userPrefix, ms) {
  const keys = await indexKeys(client, userPrefix)
  const [seconds, micros] = await client.sendCommand(["TIME"])
  const now = Number(seconds) * 1000 + Number(micros) / 1000
  let count = 0
  for (const key of keys) {
    const times = (await client.hVals(key)).map((entry) => Number(entry.split(":")[1]) / 1000)
    if (times.every((at) => now - at > ms)) count++
  }
  return count
}

/**
 * Checks of the sessions of users that every store must pass. `store` is new, `evict(key)` removes a key
 * without the store, and `count(userPrefix)` is the number of index keys.
 */
export async function holdsForUsers(store, { evict, count }) {
  const handles = async (user) => (await store.sessionsOf(user)).map(({ handle }) => handle).toSorted()
  const is = async (user, ...sids) => assert.deepEqual(await handles(user), sids.map(handleOf).toSorted(), user)
  await signIn(store, "a", "ada")
  assert.equal(await count(), 1)
  await store.destroy("a")
  assert.equal(await count(), 0)
  for (const sid of ["a", "b", "c"]) await signIn(store, sid, "ada")
  await signIn(store, "d", "bob")
  await is("ada", "a", "b", "c")
  assert.deepEqual([await store.length(), (await store.ids()).length, (await store.all()).length], [4, 4, 4])
  const [{ created, lastSeen, expires, info, current }] = await store.sessionsOf("ada", { current: "a" })
  for (const date of [created, lastSeen, expires]) assert.ok(date instanceof Date)
  assert.deepEqual([info, typeof current], [{}, "boolean"])
  assert.equal(await store.destroyHandle("bob", handleOf("a")), false)
  assert.equal(await store.destroyHandle("ada", handleOf("a")), true)
  await is("ada", "b", "c")
  assert.equal(await store.destroyUser("ada", { except: "b" }), 1)
  await is("ada", "b")
  // A running request does not bring back an ended session, and moves the entry of another one.
  const loaded = await load(store, "b")
  loaded.user = "bob"
  await store.set("b", loaded)
  await is("ada")
  await is("bob", "b", "d")
  await store.destroyUser("bob", { except: "d" })
  await store.set("b", loaded)
  await is("bob", "d")
  // After an eviction, the next save restores the rest.
  const session = await load(store, "d")
  await evict(`${store.prefix}d`)
  await is("bob")
  await store.set("d", session)
  await is("bob", "d")
  await store.touch("d", session)
  await store.destroy("d")
  await is("bob")
  // The same id again.
  await signIn(store, "d", "bob")
  await is("bob", "d")
  await store.clear()
  await is("bob")
  assert.equal(await store.length(), 0)
}

/** Checks of a store whose server takes keys of one slot only in a command. */
export async function holdsForSeveralSlots(store) {
  const signInAll = async () => {
    for (const sid of ["a", "b", "c"]) await signIn(store, sid, "ada")
  }
  await signInAll()
  assert.equal((await store.all()).length, 3)
  assert.equal((await store.sessionsOf("ada")).length, 3)
  assert.equal(await store.destroyUser("ada"), 3)
  assert.deepEqual(await store.all(), [])
  await signInAll()
  await store.clear()
  assert.deepEqual([await store.length(), await store.sessionsOf("ada")], [0, []])
  await store.close()
}
