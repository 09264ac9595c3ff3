import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"

import { createClient } from "redis"

import { RedisStore, RedisStoreError } from "../index.mjs"
import { ownPrefix, startServer } from "./support/servers.mjs"
import { startCluster, startSentinels } from "./support/topologies.mjs"
import { until } from "./support/until.mjs"

const AT_ONCE = 64

/**
 * 64 users who each save a session and read it back without waiting in between, over and over.
 * `stop()` waits for the last answers and returns the account.
 */
function load(store) {
  const account = { requests: 0, answers: 0, twice: 0, foreign: [], codes: {}, stale: 0, lastAnswerAt: 0 }
  let running = true
  const request = (start) =>
    new Promise((resolve) => {
      account.requests++
      let calls = 0
      start((error, value) => {
        if (++calls > 1) return void account.twice++
        account.answers++
        if (!error) account.lastAnswerAt = performance.now()
        else if (error instanceof RedisStoreError) account.codes[error.code] = (account.codes[error.code] ?? 0) + 1
        else account.foreign.push(error)
        resolve({ error, value })
      })
    })
  const users = Array.from({ length: AT_ONCE }, async (_, user) => {
    for (let n = 0; running; n++) {
      const sid = `user${user}-${n % 50}`
      const [set, get] = await Promise.all([
        request((done) => store.set(sid, { cookie: {}, n }, done)),
        request((done) => store.get(sid, done)),
      ])
      if (!set.error && !get.error && get.value?.n !== n) account.stale++
      // An answer that comes at once must not keep everything else from running.
      if (set.error) await delay(1)
    }
  })
  return {
    account,
    stop: async () => {
      running = false
      await Promise.all(users)
      return account
    },
  }
}

function assertAccount(account, t) {
  t.diagnostic(JSON.stringify({ ...account, lastAnswerAt: undefined }))
  assert.equal(account.answers, account.requests)
  assert.equal(account.twice, 0)
  assert.deepEqual(account.foreign, [])
  assert.ok(account.requests > AT_ONCE * 2)
}

/** Waits for an answer that came after now, and tells how long that took. */
async function serviceBack(account, t, since = performance.now()) {
  await until("service", () => account.lastAnswerAt > since)
  t.diagnostic(`service after ${Math.round(account.lastAnswerAt - since)} ms`)
}

/** Waits until 200 sessions all over the slots are read without an error. */
async function everySlotServed(store, t) {
  const since = performance.now()
  const read = () => Promise.allSettled(Array.from({ length: 200 }, (_, n) => store.get(`probe${n}`)))
  await until(
    "every slot to be served",
    async () => (await read()).every(({ status }) => status === "fulfilled"),
    20_000,
  )
  t.diagnostic(`every slot served after ${Math.round(performance.now() - since)} ms`)
}

describe("a cluster under load", () => {
  let cluster
  let store
  before(async () => {
    cluster = await startCluster()
    store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix() })
  })
  after(async () => {
    await store.close()
    await cluster.stop()
  })

  test("length, ids, all and clear are exact over 30,000 sessions", async () => {
    const own = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix() })
    const ids = Array.from({ length: 30_000 }, (_, n) => `s${n}`)
    for (let at = 0; at < ids.length; at += 5000) {
      await Promise.all(ids.slice(at, at + 5000).map((sid) => own.set(sid, { cookie: {}, sid })))
    }
    assert.equal(await own.length(), ids.length)
    assert.deepEqual((await own.ids()).toSorted(), ids.toSorted())
    const all = await own.all()
    assert.deepEqual(all.map((found) => found.sid).toSorted(), ids.toSorted())
    await own.clear()
    assert.equal(await own.length(), 0)
    await own.close()
  })

  test("slots migrate, and every request is answered once, in its order", async (t) => {
    const { account, stop } = load(store)
    await until("load", () => account.answers > 1000)
    const [from, to] = cluster.masters
    const [fromId, toId] = await Promise.all([from, to].map(({ port }) => cluster.command(port, "CLUSTER", "MYID")))
    for (let slot = 0; slot < 300; slot++) {
      await cluster.command(to.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromId)
      await cluster.command(from.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", toId)
      for (;;) {
        const keys = await cluster.command(from.port, "CLUSTER", "GETKEYSINSLOT", slot, 100)
        if (keys.length === 0) break
        await cluster.command(from.port, "MIGRATE", "127.0.0.1", to.port, "", 0, 1000, "REPLACE", "KEYS", ...keys)
      }
      for (const { port } of [to, from]) await cluster.command(port, "CLUSTER", "SETSLOT", slot, "NODE", toId)
    }
    await serviceBack(account, t)
    assertAccount(await stop(), t)
    assert.equal(account.stale, 0)
    assert.deepEqual(account.codes, {})
  })

  test("a replica takes over by CLUSTER FAILOVER", async (t) => {
    const { account, stop } = load(store)
    await until("load", () => account.answers > 1000)
    const replica = cluster.replicas[0]
    await cluster.command(replica.port, "CLUSTER", "FAILOVER")
    await until("the new master", async () =>
      (await cluster.command(replica.port, "ROLE"))[0].toString().includes("master"),
    )
    await everySlotServed(store, t)
    assertAccount(await stop(), t)
  })

  test("a master is killed, and its replica takes over", async (t) => {
    const { account, stop } = load(store)
    await until("load", () => account.answers > 1000)
    const [, master] = cluster.masters
    const [, replica] = cluster.replicas
    process.kill(master.pid, "SIGKILL")
    const promoted = async () => (await cluster.command(replica.port, "ROLE"))[0].toString().includes("master")
    await until("the new master", promoted, 30_000)
    await everySlotServed(store, t)
    assertAccount(await stop(), t)
  })
})

test("slots that a cluster serves only later are found", async () => {
  const node = await startServer({ args: ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"] })
  const client = await createClient({ url: node.url }).connect()
  const slots = (from, to) => Array.from({ length: to - from }, (_, n) => String(from + n))
  await client.sendCommand(["CLUSTER", "ADDSLOTS", ...slots(0, 8000)])
  const store = new RedisStore({ nodes: [{ port: node.port }], prefix: ownPrefix(), commandTimeoutMs: 300 })
  const sids = Array.from({ length: 50 }, (_, n) => `s${n}`)
  const stored = async () => {
    const results = await Promise.allSettled(sids.map((sid) => store.set(sid, { cookie: {} })))
    return results.filter(({ status }) => status === "fulfilled").length
  }
  // A new cluster takes writes after two seconds; until then the store looks at it again and again.
  await until("the first half to be served", async () => (await stored()) > 10)
  const half = await stored()
  assert.ok(half > 10 && half < sids.length)
  await client.sendCommand(["CLUSTER", "ADDSLOTS", ...slots(8000, 16384)])
  await until("every slot to be served", async () => (await stored()) === sids.length)
  await store.close()
  client.destroy()
  await node.stop()
})

describe("a master of sentinels under load", () => {
  let group
  let store
  before(async () => {
    group = await startSentinels()
    store = new RedisStore({ sentinel: { name: group.name, nodes: group.nodes }, prefix: ownPrefix() })
  })
  after(async () => {
    await store.close()
    await group.stop()
  })

  const FAULTS = {
    "SENTINEL FAILOVER": () => group.ask("FAILOVER", group.name),
    "kill -9 of the master": async () => {
      const port = await group.masterPort()
      const master = [group.master, ...group.replicas].find((server) => server.port === port)
      process.kill(master.pid, "SIGKILL")
    },
  }
  for (const [fault, inject] of Object.entries(FAULTS)) {
    test(fault, async (t) => {
      const { account, stop } = load(store)
      await until("load", () => account.answers > 1000)
      const old = await group.masterPort()
      await inject()
      await until("a new master", async () => (await group.masterPort()) !== old, 30_000)
      await serviceBack(account, t)
      assert.equal(await store.set("after", { cookie: {} }), null)
      assertAccount(await stop(), t)
    })
  }
})
