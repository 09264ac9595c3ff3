import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster, startSentinels } from "../testing/topologies.mjs"
import { startLoad } from "../testing/load.mjs"
import { until } from "../testing/until.mjs"
import { freePort, ownPrefix, startServer } from "./support/servers.mjs"

/** Two requests at once each. */
const USERS = 32

async function underLoad(store) {
  const load = startLoad([store], USERS)
  await until("load", () => load.account.answers > 1000)
  return load
}

/** Ends the load and holds it to its account. */
async function assertAccount({ account, stop }, t) {
  await stop()
  t.diagnostic(JSON.stringify({ ...account, servedAt: undefined }))
  assert.equal(account.answers, account.requests)
  assert.equal(account.twice, 0)
  assert.equal(account.crossed, 0)
  assert.deepEqual(account.foreign, [])
}

/** Waits until every user is served. */
async function serviceBack({ account }, t, since = performance.now()) {
  await until("service", () => account.servedAt.every((at) => at > since))
  t.diagnostic(`service after ${Math.round(Math.max(...account.servedAt) - since)} ms`)
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
    const load = await underLoad(store)
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
    await serviceBack(load, t)
    await assertAccount(load, t)
    assert.equal(load.account.lost, 0)
    assert.deepEqual(load.account.codes, {})
  })

  test("a slot that has moved is found, and the map is asked for, without a new connection", async () => {
    const own = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), emitConnectionEvents: true })
    const said = []
    for (const event of ["connect", "disconnect"]) own.on(event, () => said.push(event))
    await own.get("a")
    await until("all masters", () => said.length === 1)
    // New connections are refused, the open ones are not.
    const demand = async (password) => {
      for (const { port } of cluster.servers) await cluster.command(port, "CONFIG", "SET", "requirepass", password)
    }
    const maps = async () => {
      let count = 0
      for (const { port } of cluster.servers) {
        const stats = String(await cluster.command(port, "INFO", "commandstats"))
        count += Number(/cmdstat_cluster\|slots:calls=(\d+)/.exec(stats)?.[1] ?? 0)
      }
      return count
    }
    await demand("secret")
    try {
      const [from, to] = [cluster.masters[1], cluster.masters[0]]
      const slotOf = (sid) => cluster.command(from.port, "CLUSTER", "KEYSLOT", own.prefix + sid)
      const isServed = (key) =>
        cluster.command(from.port, "GET", key).then(
          () => true,
          () => false,
        )
      const isEmpty = async (slot) => (await cluster.command(from.port, "CLUSTER", "COUNTKEYSINSLOT", slot)) === 0
      // A session id whose slot that one serves, and which has no keys: markers are some.
      let n = 0
      while (!(await isServed(own.prefix + n)) || !(await isEmpty(await slotOf(n)))) n++
      const sid = String(n)
      const slot = await slotOf(sid)
      const [fromId, toId] = await Promise.all([from, to].map(({ port }) => cluster.command(port, "CLUSTER", "MYID")))
      await cluster.command(to.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromId)
      await cluster.command(from.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", toId)
      for (const { port } of [to, from]) await cluster.command(port, "CLUSTER", "SETSLOT", slot, "NODE", toId)
      const before = await maps()
      assert.equal(await own.get(sid), null)
      await until("the map to be asked for", async () => (await maps()) > before)
      assert.equal(await own.get(sid), null)
      assert.equal(own.status, "ready")
      assert.deepEqual(said, ["connect"])
    } finally {
      await demand("")
    }
    await own.close()
  })

  test("a replica takes over by CLUSTER FAILOVER", async (t) => {
    const load = await underLoad(store)
    const replica = cluster.replicas[0]
    await cluster.command(replica.port, "CLUSTER", "FAILOVER")
    await until("the new master", async () =>
      (await cluster.command(replica.port, "ROLE"))[0].toString().includes("master"),
    )
    await everySlotServed(store, t)
    await assertAccount(load, t)
  })

  test("a master is killed, and its replica takes over", async (t) => {
    const load = await underLoad(store)
    const [, master] = cluster.masters
    const [, replica] = cluster.replicas
    process.kill(master.pid, "SIGKILL")
    const promoted = async () => (await cluster.command(replica.port, "ROLE"))[0].toString().includes("master")
    await until("the new master", promoted, 30_000)
    await everySlotServed(store, t)
    await assertAccount(load, t)
  })
})

describe("an idle store of a cluster", () => {
  test("is connected to at once, and serves what is asked later than a deadline", async () => {
    const cluster = await startCluster()
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), commandTimeoutMs: 300 })
    let isReady = false
    store.on("ready", () => (isReady = true))
    await until("the cluster", () => isReady)
    await delay(600)
    assert.equal(await store.get("sid"), null)
    await store.close()
    await cluster.stop()
  })

  test("opens its circuit if it is not there", async () => {
    const store = new RedisStore({ nodes: [{ port: await freePort() }], commandTimeoutMs: 300 })
    await until("the circuit to open", () => store.status === "down")
    await assert.rejects(store.length(), { code: "ERR_REDIS_STORE_CONNECT" })
    await store.close()
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
      const load = await underLoad(store)
      const old = await group.masterPort()
      await inject()
      await until("a new master", async () => (await group.masterPort()) !== old, 30_000)
      await serviceBack(load, t)
      assert.equal(await store.set("after", { cookie: {} }), null)
      await assertAccount(load, t)
    })
  }
})
