// Cluster clients that are delegated to: commands go to each key and each master.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { startCluster, startWholeCluster } from "../testing/topologies.mjs"
import { RedisStore } from "./support/delegated.mjs"
import { holdsForSeveralSlots, userOf } from "./support/users.mjs"
import { ownPrefix } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })

let cluster
before(async () => {
  cluster = await startCluster({ replicas: 0 })
})
after(() => cluster.stop())

const nodeRedis = (name) => async () => {
  const rootNodes = cluster.nodes.map(({ host, port }) => ({ url: `redis://${host}:${port}` }))
  const client = require(name).createCluster({ rootNodes })
  await client.on("error", () => {}).connect()
  return client
}
const ioredis = (name, options) => async () => {
  const module = require(name)
  return new (module.default ?? module).Cluster(cluster.nodes, options)
}

const CLIENTS = {
  "redis 4": nodeRedis("redis-4"),
  "redis 6": nodeRedis("redis"),
  "redis 6, wrapped": async () => {
    const client = await nodeRedis("redis")()
    return new Proxy(client, {
      get: (target, name) => (typeof target[name] === "function" ? target[name].bind(target) : target[name]),
    })
  },
  "ioredis 4": ioredis("ioredis-4"),
  "ioredis 4 with automatic pipelines": ioredis("ioredis-4", { enableAutoPipelining: true }),
  "ioredis 6": ioredis("ioredis"),
  "ioredis 6 with automatic pipelines": ioredis("ioredis", { enableAutoPipelining: true }),
  "ioredis 6 with a keyPrefix": ioredis("ioredis", { keyPrefix: "kp:" }),
  "iovalkey with automatic pipelines": ioredis("iovalkey", { enableAutoPipelining: true }),
  "valkey-glide": () => {
    const { GlideClusterClient } = require("@valkey/valkey-glide")
    return GlideClusterClient.createClient({ addresses: cluster.nodes })
  },
}

/** The number of commands so far that reached a node of other keys. */
async function redirections() {
  const infos = await Promise.all(cluster.nodes.map(({ port }) => cluster.command(port, "INFO", "errorstats")))
  return infos.reduce((sum, info) => sum + Number(/errorstat_MOVED:count=(\d+)/.exec(info)?.[1] ?? 0), 0)
}

describe("without the native binary, a cluster is served by", () => {
  for (const [name, make] of Object.entries(CLIENTS)) {
    test(name, async () => {
      const client = await make()
      try {
        const store = new RedisStore({ client, prefix: ownPrefix() })
        assert.equal(store.native, false)
        const sids = Array.from({ length: 40 }, (_, n) => `s${n}`)
        // Before the client knows its masters, for clients that connect by themselves.
        assert.equal(await store.length(), 0)
        for (const sid of sids) await store.set(sid, { cookie: cookie(), sid })
        assert.equal(await store.ping(), "PONG")
        assert.equal(await store.length(), 40)
        assert.deepEqual((await store.ids()).toSorted(), sids.toSorted())
        assert.deepEqual((await store.all()).map(({ id }) => id).toSorted(), sids.toSorted())
        const load = async (sid) => store.createSession({ sessionID: sid, sessionStore: store }, await store.get(sid))
        const [destroyed, cleared] = [await load("s1"), await load("s2")]
        await store.destroy("s1")
        await store.set("s1", destroyed)
        assert.equal(await store.get("s1"), null)
        await store.clear()
        assert.equal(await store.length(), 0)
        await store.set("s2", cleared)
        assert.equal(await store.get("s2"), null)
        const before = await redirections()
        const loaded = []
        for (const sid of sids) {
          await store.set(sid, { cookie: cookie() })
          loaded.push(await load(sid))
          await store.destroy(sid)
        }
        // Each by a script, where the client has them.
        await Promise.all(sids.map((sid, at) => store.set(sid, loaded[at])))
        assert.equal(await store.length(), 0)
        assert.equal(await redirections(), before)
        // Its marker is in another slot.
        await store.set("{a}1", { cookie: cookie() })
        const braced = await load("{a}1")
        await store.destroy("{a}1")
        await store.set("{a}1", braced)
        assert.equal(await store.get("{a}1"), null)
        await store.close()
      } finally {
        await (client.close === undefined ? client.disconnect() : client.close())
      }
    })
  }
})

describe("a cluster of one server, by a client of one server", () => {
  let server
  let client
  before(async () => {
    server = await startWholeCluster()
    client = await require("redis").createClient({ url: server.url, RESP: 2 }).connect()
  })
  after(async () => {
    client.destroy()
    await server.stop()
  })

  test("a session that was evicted is saved", async () => {
    const store = new RedisStore({ client, prefix: "s:" })
    assert.equal(store.native, false)
    await store.set("a", { cookie: cookie() })
    const session = store.createSession({ sessionID: "a", sessionStore: store }, await store.get("a"))
    await client.del("s:a")
    session.n = 1
    await store.set("a", session)
    assert.equal((await store.get("a")).n, 1)
    await store.destroy("a")
    await store.set("a", session)
    assert.equal(await store.get("a"), null)
    await store.close()
  })

  test("sessions of several slots are listed, ended and cleared", () =>
    holdsForSeveralSlots(new RedisStore({ client, userOf })))
})
