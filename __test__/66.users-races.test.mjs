// Sign-ins of a user race with "log out everywhere": no session is forgotten.
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { after, describe, test } from "node:test"
import { fileURLToPath } from "node:url"

import { createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { load, signIn, userOf } from "./support/users.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const LONG = process.env.LONG_FORM !== undefined
const server = ownServer()
const WORKER = fileURLToPath(new URL("support/users-process.mjs", import.meta.url))
const processes = []
after(() => processes.forEach((child) => child.kill("SIGKILL")))

/** Another process with a store of these options. `ask(name, value)` runs one of its actions. */
function start(options) {
  const child = fork(WORKER, [JSON.stringify(options)], { execArgv: [] })
  processes.push(child)
  const waiting = new Map()
  let count = 0
  child.on("message", ({ number, result, error }) => {
    const { resolve, reject } = waiting.get(number)
    waiting.delete(number)
    if (error === undefined) resolve(result)
    else reject(new Error(error))
  })
  const ask = (action, ...args) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject })
      child.send({ number: count, action, args })
    })
  return { child, ask }
}

/**
 * Rounds of three sign-ins and one `destroyUser` in parallel, over two processes. `alive(sid)` asks Redis.
 * After each round all live sessions are listed; after another revoke none is alive.
 */
async function race(options, rounds, alive) {
  const store = new RedisStore({ ...options, userOf })
  const others = [start(options), start(options)]
  const counts = { alive: 0, ended: 0 }
  const AT_ONCE = 20
  for (let at = 0; at < rounds; at += AT_ONCE) {
    const round = async (n) => {
      const user = `user${n}`
      const sids = [0, 1, 2].map((m) => `s${n}-${m}`)
      const [one, other] = n % 2 === 0 ? others : others.toReversed()
      await Promise.all([
        one.ask("signIn", sids[0], user),
        other.ask("signIn", sids[1], user),
        n % 3 === 0 ? other.ask("destroyUser", user) : one.ask("destroyUser", user),
        one.ask("signIn", sids[2], user),
      ])
      const living = []
      for (const sid of sids) if (await alive(store.prefix + sid)) living.push(sid)
      const listed = await store.sessionsOf(user)
      counts.alive += living.length
      counts.ended += 3 - living.length
      assert.equal(listed.length, living.length, `${living.length} alive of ${user}, ${listed.length} listed`)
      await other.ask("destroyUser", user)
      for (const sid of sids) assert.equal(await alive(store.prefix + sid), false, `${sid} is alive after a revoke`)
    }
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, rounds - at) }, (_, n) => round(at + n)))
  }
  // Both must happen, otherwise nothing raced.
  assert.ok(counts.alive > 0 && counts.ended > 0, JSON.stringify(counts))
  await Promise.all(others.map(({ ask }) => ask("close")))
  await store.close()
  return counts
}

describe("three sign-ins and one destroyUser at once, over two processes", () => {
  const ROUNDS = LONG ? 10_000 : 400
  test(`on one server, ${ROUNDS} rounds`, { timeout: 600_000 }, async () => {
    const options = { url: server.url, prefix: ownPrefix(), commandTimeoutMs: 20_000 }
    await race(options, ROUNDS, async (key) => (await server.client.exists(key)) > 0)
  })

  const CLUSTER_ROUNDS = LONG ? 2000 : 100
  test(`in a cluster, ${CLUSTER_ROUNDS} rounds`, { timeout: 600_000 }, async () => {
    const cluster = await startCluster({ replicas: 0 })
    const rootNodes = cluster.masters.map(({ url }) => ({ url }))
    const client = await createCluster({ rootNodes }).connect()
    const options = { nodes: cluster.nodes, prefix: ownPrefix(), commandTimeoutMs: 20_000 }
    await race(options, CLUSTER_ROUNDS, async (key) => (await client.exists(key)) > 0)
    await client.close()
    await cluster.stop()
  })
})

test("sign-ins with the same id, again and again, race with revokes", async () => {
  const options = { url: server.url, prefix: ownPrefix(), commandTimeoutMs: 20_000 }
  const store = new RedisStore({ ...options, userOf })
  const other = new RedisStore({ ...options, userOf })
  for (let n = 0; n < (LONG ? 3000 : 300); n++) {
    await Promise.all([
      signIn(store, "a", "ada"),
      other.destroyUser("ada"),
      other.destroy("a"),
      signIn(other, "a", "ada"),
    ])
    const isAlive = (await server.client.exists(`${store.prefix}a`)) > 0
    assert.equal((await store.sessionsOf("ada")).length, isAlive ? 1 : 0)
    await store.destroyUser("ada")
    assert.equal(await server.client.exists(`${store.prefix}a`), 0)
  }
  await Promise.all([store.close(), other.close()])
})

test("requests that change the users of sessions race with revokes", async () => {
  const options = { url: server.url, prefix: ownPrefix(), commandTimeoutMs: 20_000 }
  const [store, other] = [1, 2].map(() => new RedisStore({ ...options, userOf }))
  for (let n = 0; n < (LONG ? 2000 : 200); n++) {
    await signIn(store, "a", "ada")
    const [one, two] = [await load(store, "a"), await load(other, "a")]
    Object.assign(one, { user: "bob" })
    Object.assign(two, { n })
    await Promise.all([store.set("a", one), other.set("a", two), other.destroyUser("ada"), store.destroyUser("bob")])
    const stored = await store.get("a")
    for (const user of ["ada", "bob"]) {
      const found = await store.sessionsOf(user)
      assert.equal(found.length, stored?.user === user ? 1 : 0, `${stored?.user}, ${user}`)
    }
    await Promise.all([store.destroyUser("ada"), store.destroyUser("bob")])
    assert.equal(await store.get("a"), null)
  }
  await Promise.all([store.close(), other.close()])
})

describe("maxSessionsPerUser", () => {
  const open = (options) => new RedisStore({ url: server.url, commandTimeoutMs: 20_000, userOf, ...options })

  test("ends the oldest; the new session exists when set answers", async () => {
    const store = open({ prefix: ownPrefix(), maxSessionsPerUser: 2 })
    const sids = ["a", "b", "c", "d"]
    for (const [n, sid] of sids.entries()) {
      await signIn(store, sid, "ada")
      assert.deepEqual((await store.ids()).toSorted(), sids.slice(Math.max(0, n - 1), n + 1))
    }
    await signIn(store, "other", "bob")
    // An existing session does not count again.
    await signIn(store, "c", "ada")
    await store.set("d", await load(store, "d"))
    assert.equal(await store.length(), 3)
    const loaded = await load(store, "other")
    loaded.user = "ada"
    await store.set("other", loaded)
    assert.deepEqual((await store.ids()).toSorted(), ["d", "other"])
    await store.close()
  })

  test("counts existing sessions, not entries", async () => {
    for (const maxSessionsPerUser of [2, { max: 2, onLimit: "reject" }]) {
      const store = open({ prefix: ownPrefix(), maxSessionsPerUser })
      await signIn(store, "a", "ada")
      await signIn(store, "b", "ada")
      await server.client.del(`${store.prefix}b`)
      await signIn(store, "c", "ada")
      assert.deepEqual((await store.ids()).toSorted(), ["a", "c"])
      await store.close()
    }
  })

  test("rejects, and existing sessions stay", async () => {
    const store = open({ prefix: ownPrefix(), maxSessionsPerUser: { max: 2, onLimit: "reject" } })
    const refused = { code: "ERR_REDIS_STORE_SESSION_LIMIT", message: /its user already has 2 sessions/ }
    await signIn(store, "a", "ada")
    await signIn(store, "b", "ada")
    await assert.rejects(signIn(store, "c", "ada"), refused)
    await signIn(store, "other", "bob")
    const loaded = await load(store, "other")
    loaded.user = "ada"
    await assert.rejects(store.set("other", loaded), refused)
    assert.deepEqual((await store.ids()).toSorted(), ["a", "b", "other"])
    assert.equal((await store.sessionsOf("ada")).length, 2)
    assert.equal((await store.sessionsOf("bob")).length, 1)
    await store.set("a", await load(store, "a"))
    await store.destroy("a")
    await signIn(store, "c", "ada")
    assert.deepEqual((await store.ids()).toSorted(), ["b", "c", "other"])
    await store.close()
  })

  test("holds while many sign in at once, over two processes", async () => {
    for (const maxSessionsPerUser of [3, { max: 3, onLimit: "reject" }]) {
      const options = { url: server.url, prefix: ownPrefix(), commandTimeoutMs: 20_000, maxSessionsPerUser }
      const others = [start(options), start(options)]
      const store = open(options)
      for (let n = 0; n < (LONG ? 200 : 20); n++) {
        const signs = Array.from({ length: 10 }, (_, m) => others[m % 2].ask("signIn", `s${n}-${m}`, `user${n}`))
        await Promise.allSettled(signs)
        assert.equal((await store.sessionsOf(`user${n}`)).length, 3)
      }
      assert.equal(await store.length(), 3 * (LONG ? 200 : 20))
      await Promise.all(others.map(({ ask }) => ask("close")))
      await store.close()
    }
  })
})

describe("kill -9", () => {
  test("of a process that signs in: its sessions are listed, or do not exist", async () => {
    const options = { url: server.url, prefix: ownPrefix(), commandTimeoutMs: 500 }
    const store = new RedisStore({ ...options, userOf })
    for (let n = 0; n < (LONG ? 50 : 5); n++) {
      const { child, ask } = start(options)
      await ask("ready")
      ask("signInForEver", `user${n}`).catch(() => {})
      await until("sessions", async () => (await store.sessionsOf(`user${n}`)).length > 10)
      child.kill("SIGKILL")
      await new Promise((resolve) => child.once("exit", resolve))
      const listed = (await store.sessionsOf(`user${n}`)).length
      assert.equal(listed, await store.length())
      assert.equal(await store.destroyUser(`user${n}`), listed)
      assert.equal(await store.length(), 0)
    }
    await store.close()
  })
})
