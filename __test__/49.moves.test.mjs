import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { after, before, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { startForwarder } from "../testing/forwarder.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { ownPrefix, startServer } from "./support/servers.mjs"

const session = { cookie: { originalMaxAge: null } }

describe("a name that moves to another server", () => {
  let servers
  let clients
  let forwarder
  before(async () => {
    servers = [await startServer(), await startServer()]
    clients = await Promise.all(servers.map(({ url }) => createClient({ url }).connect()))
    await clients[1].sendCommand(["REPLICAOF", "127.0.0.1", String(servers[0].port)])
    await until("replication", async () => (await clients[1].info("replication")).includes("master_link_status:up"))
    forwarder = await startForwarder(servers[0].port)
  })
  after(async () => {
    forwarder.stop()
    for (const client of clients) client.destroy()
    for (const server of servers) await server.stop()
  })

  test("the old primary becomes a replica: no request fails or is lost", async () => {
    const store = new RedisStore({ url: `redis://127.0.0.1:${forwarder.port}`, prefix: ownPrefix() })
    for (const sid of ["a", "b", "c"]) await store.set(sid, session)
    await until("replication", async () => (await clients[1].exists(`${store.prefix}c`)) === 1)
    await clients[1].sendCommand(["REPLICAOF", "NO", "ONE"])
    await clients[0].sendCommand(["REPLICAOF", "127.0.0.1", String(servers[1].port)])
    // The store's connection stays open, and its server refuses writes.
    const { connections } = forwarder
    forwarder.move(servers[1].port)
    const results = await Promise.all([
      store.set("a", { ...session, n: 2 }),
      store.touch("b", { cookie: { expires: new Date(Date.now() + 60_000) } }),
      store.destroy("c"),
    ])
    assert.deepEqual(results, [null, null, null])
    assert.equal(forwarder.connections, connections + 1)
    assert.equal(store.status, "ready")
    const looker = clients[1]
    assert.equal(JSON.parse(await looker.get(`${store.prefix}a`)).n, 2)
    assert.ok((await looker.pTTL(`${store.prefix}b`)) <= 60_000)
    assert.equal(await looker.exists(`${store.prefix}c`), 0)
    await store.close()
  })

  test("to a server that stays a replica the store connects once a second at most, and the error is the server's", async () => {
    // This server is now the replica.
    const [{ port }] = servers
    forwarder.move(port)
    const store = new RedisStore({ url: `redis://127.0.0.1:${forwarder.port}`, prefix: ownPrefix() })
    await until("the connection", () => store.status === "ready")
    const { connections } = forwarder
    const since = performance.now()
    const results = await Promise.allSettled(Array.from({ length: 50 }, (_, n) => store.set(`s${n}`, session)))
    const seconds = Math.ceil((performance.now() - since) / 1000)
    for (const { reason } of results) {
      assert.equal(reason.code, "ERR_REDIS_STORE_SERVER")
      assert.match(reason.message, /READONLY/)
    }
    assert.ok(forwarder.connections - connections <= seconds + 1)
    assert.equal(await store.get("s1"), null)
    await store.close()
  })
})

test("MASTERDOWN gives the connection up, and the request is repeated", async () => {
  const fake = await startFakeServer(([name, question], connection) => {
    if (name === "GET") return connection === 1 ? "-MASTERDOWN Link with MASTER is down\r\n" : "$-1\r\n"
    return name === "CLIENT" && question === "ID" ? `:${connection}\r\n` : "+OK\r\n"
  })
  const store = new RedisStore({ url: fake.url })
  assert.equal(await store.get("sid"), null)
  await store.close()
  fake.stop()
})

test("permanent NOAUTH fails requests at once, and causes one connection a second at most", async () => {
  let connections = 0
  const fake = await startFakeServer((_words, connection) => {
    connections = connection
    return "-NOAUTH Authentication required.\r\n"
  })
  // Credentials from a function may have been renewed.
  const store = new RedisStore({ url: fake.url, credentials: () => ({}), commandTimeoutMs: 30_000 })
  const since = performance.now()
  for (let n = 0; n < 50; n++) {
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_AUTH", message: /NOAUTH/ })
  }
  const seconds = (performance.now() - since) / 1000
  assert.ok(connections <= 2 + seconds, `${connections} connections in ${seconds} s`)
  await store.close()
  fake.stop()
})

describe("a cluster that resharding and failovers move", () => {
  const USER = "sessions"
  let cluster
  before(async () => {
    cluster = await startCluster({ replicas: 0 })
  })
  after(() => cluster.stop())

  /** Moves the first `count` slots from one master to another, key by key. */
  async function move(count, from, to) {
    const ids = await Promise.all([from, to].map(({ port }) => cluster.command(port, "CLUSTER", "MYID")))
    const [fromId, toId] = ids
    for (let slot = 0; slot < count; slot++) {
      await cluster.command(to.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromId)
      await cluster.command(from.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", toId)
      for (;;) {
        const keys = await cluster.command(from.port, "CLUSTER", "GETKEYSINSLOT", slot, 100)
        if (keys.length === 0) break
        await cluster.command(from.port, "MIGRATE", "127.0.0.1", to.port, "", 0, 1000, "REPLACE", "KEYS", ...keys)
      }
      for (const { port } of [to, from]) await cluster.command(port, "CLUSTER", "SETSLOT", slot, "NODE", toId)
    }
  }

  test("the documented ACL runs every option while slots move", async () => {
    const page = readFileSync(new URL("../docs/topologies.md", import.meta.url), "utf8")
    const [, rule] = /^ACL SETUSER sessions (.*)$/m.exec(page)
    for (const { port } of cluster.masters) {
      await cluster.command(port, "ACL", "SETUSER", USER, "reset", ...rule.split(" "))
      await cluster.command(port, "ACL", "LOG", "RESET")
    }
    const options = { nodes: cluster.nodes, username: USER, password: "password" }
    const stores = [
      new RedisStore(options),
      new RedisStore({ ...options, onConflict: "merge", freshExpires: true, clientName: "sessions" }),
      new RedisStore({ ...options, onConflict: "error", maxLifetime: 3600, touchAfter: 1, resurrect: true }),
    ]
    const sids = Array.from({ length: 400 }, (_, n) => `s${n}`)
    let isMoving = true
    const work = async (store, sid) => {
      while (isMoving) {
        await store.set(sid, session)
        const found = await store.get(sid)
        const loaded = store.createSession({ sessionID: sid, sessionStore: store }, found)
        loaded.n = Math.random()
        await store.set(sid, loaded)
        await store.touch(sid, loaded)
        await store.destroy(sid)
      }
    }
    const working = Promise.all(sids.map((sid, n) => work(stores[n % stores.length], sid)))
    await move(200, cluster.masters[0], cluster.masters[1])
    isMoving = false
    await working
    for (const store of stores) {
      await store.set("last", session)
      assert.equal(await store.length(), 1)
      assert.deepEqual(await store.ids(), ["last"])
      assert.equal((await store.all()).length, 1)
      await store.ping()
      await store.clear()
      const { commands } = store.stats()
      for (const outcomes of Object.values(commands))
        assert.deepEqual(
          Object.keys(outcomes).filter((it) => it !== "ok" && it !== "spared"),
          [],
        )
      await store.close()
    }
    for (const { port } of cluster.masters) assert.deepEqual(await cluster.command(port, "ACL", "LOG"), [])
  })

  test("an unknown endpoint means the node that was asked", async () => {
    // "?" in CLUSTER SLOTS, MOVED and ASK.
    for (const { port } of cluster.masters) {
      await cluster.command(port, "CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
    }
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix() })
    const sids = Array.from({ length: 200 }, (_, n) => `s${n}`)
    await Promise.all(sids.map((sid) => store.set(sid, { ...session, sid })))
    await move(100, cluster.masters[1], cluster.masters[0])
    const found = await Promise.all(sids.map((sid) => store.get(sid)))
    assert.deepEqual(
      found.map(({ sid }) => sid),
      sids,
    )
    await store.close()
  })
})
