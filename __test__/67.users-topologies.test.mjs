// The sessions of a user on a cluster and behind sentinels, whose servers fail.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { createClient, createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster, startSentinels, startWholeCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { cookie, holdsForSeveralSlots, holdsForUsers, indexKeys, load, signIn, userOf } from "./support/users.mjs"
import { ownPrefix } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { handleOf } = require("../lib/users/keys.js")
const commandTimeoutMs = 20_000

describe("a cluster", () => {
  let cluster
  let client
  const clients = []
  before(async () => {
    cluster = await startCluster()
    client = await createCluster({ rootNodes: cluster.masters.map(({ url }) => ({ url })) }).connect()
    for (const { url } of cluster.masters) clients.push(await createClient({ url }).connect())
  })
  after(async () => {
    for (const each of [client, ...clients]) each.destroy()
    await cluster.stop()
  })
  const count = async (userPrefix) => {
    const keys = await Promise.all(clients.map((each) => indexKeys(each, userPrefix)))
    return keys.flat().length
  }

  const SOURCES = {
    "option nodes": () => ({ nodes: cluster.nodes }),
    "redis createCluster": () => ({
      client: createCluster({ rootNodes: cluster.nodes.map((socket) => ({ socket })) }),
    }),
    "ioredis Cluster": () => {
      const Redis = require("ioredis").default
      return { client: new Redis.Cluster(cluster.nodes, { keyPrefix: "own:" }).on("error", () => {}) }
    },
  }
  for (const [name, source] of Object.entries(SOURCES)) {
    test(name, async () => {
      const options = source()
      for (const prefix of [ownPrefix(), `{${ownPrefix()}}:`]) {
        const store = new RedisStore({ ...options, prefix, userOf, commandTimeoutMs })
        const own = options.client?.isCluster ? "own:" : ""
        await holdsForUsers(store, {
          evict: (key) => client.del(own + key),
          count: () => count(`${own}users:${prefix}`),
        })
        await store.close()
      }
      if (options.client?.isCluster) options.client.disconnect()
    })
  }

  test("a prefix with empty braces", async () => {
    const store = new RedisStore({ nodes: cluster.nodes, prefix: `${ownPrefix()}{}`, userOf, commandTimeoutMs })
    for (const sid of ["a", "b"]) await signIn(store, sid, "ada")
    assert.equal((await store.sessionsOf("ada")).length, 2)
    assert.equal(await store.destroyUser("ada"), 2)
    assert.equal(await store.length(), 0)
    await store.close()
  })

  test("an id with braces, whose marker is in another slot", async () => {
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), userOf, commandTimeoutMs })
    for (const sid of ["a{b}c", "a}b", "{x}"]) {
      await signIn(store, sid, "ada")
      assert.deepEqual(
        (await store.sessionsOf("ada")).map(({ handle }) => handle),
        [handleOf(sid)],
      )
      assert.equal(await store.destroyUser("ada"), 1)
      assert.equal(await store.get(sid), null)
    }
    await store.close()
  })

  test("a sign-in whose id was destroyed just before", async () => {
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), userOf, commandTimeoutMs })
    for (let n = 0; n < 100; n++) {
      await signIn(store, "a", "ada")
      assert.equal((await store.sessionsOf("ada")).length, 1)
      await store.destroy("a")
    }
    await store.close()
  })

  test("limits hold during parallel sign-ins", async () => {
    for (const maxSessionsPerUser of [2, { max: 2, onLimit: "reject" }]) {
      const options = { nodes: cluster.nodes, prefix: ownPrefix(), userOf, commandTimeoutMs, maxSessionsPerUser }
      const [one, other] = [1, 2].map(() => new RedisStore(options))
      for (let n = 0; n < 20; n++) {
        const sign = (m) => signIn(m % 2 === 0 ? one : other, `s${n}-${m}`, `user${n}`)
        await Promise.allSettled([0, 1, 2, 3, 4, 5].map(sign))
        assert.equal((await one.sessionsOf(`user${n}`)).length, 2)
      }
      assert.equal(await one.length(), 40)
      await Promise.all([one.close(), other.close()])
    }
  })

  test("failovers of every server: listed sessions exist, and saves write the entries again", async () => {
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), userOf })
    const sids = Array.from({ length: 20 }, (_, n) => `s${n}`)
    for (const sid of sids) await signIn(store, sid, "ada")
    for (const { port } of cluster.replicas) await cluster.command(port, "CLUSTER", "FAILOVER", "TAKEOVER")
    // A former master accepts writes until it learns that another one has its slots, and they are lost.
    await until("the former masters to be replicas", async () => {
      const roles = await Promise.all(cluster.masters.map(({ port }) => cluster.command(port, "ROLE")))
      return roles.every(([role]) => role === "slave")
    })
    await until("every session to be listed", async () => {
      const save = async (sid) => store.set(sid, (await load(store, sid)) ?? { cookie: cookie(), user: "ada" })
      const outcomes = await Promise.allSettled(sids.map(save))
      if (outcomes.some(({ status }) => status === "rejected")) return false
      return (await store.sessionsOf("ada")).length === 20
    })
    assert.equal(await store.destroyUser("ada"), 20)
    assert.equal(await store.length(), 0)
    await store.close()
  })
})

test("a cluster of one server, by its url", async () => {
  const server = await startWholeCluster()
  await holdsForSeveralSlots(new RedisStore({ url: server.url, userOf }))
  await server.stop()
})

describe("sentinels", () => {
  test("a master that dies: sessions on the replica are listed, and the next save lists the others", async () => {
    const set = await startSentinels()
    const options = { sentinel: { name: set.name, nodes: set.nodes }, prefix: ownPrefix(), userOf }
    const store = new RedisStore(options)
    const client = await createClient({ url: set.master.url }).connect()
    await holdsForUsers(store, {
      evict: (key) => client.del(key),
      count: async () => (await indexKeys(client, `users:${store.prefix}`)).length,
    })
    const sids = Array.from({ length: 20 }, (_, n) => `s${n}`)
    for (const sid of sids) await signIn(store, sid, "ada")
    client.destroy()
    set.master.process.kill("SIGKILL")
    await until("another master", async () => (await set.masterPort()) !== set.master.port, 30_000)
    await until(
      "every session to be saved",
      async () => {
        const outcomes = await Promise.allSettled(sids.map((sid) => signIn(store, sid, "ada")))
        return outcomes.every(({ status }) => status === "fulfilled")
      },
      30_000,
    )
    assert.equal((await store.sessionsOf("ada")).length, 20)
    assert.equal(await store.destroyUser("ada"), 20)
    assert.equal(await store.length(), 0)
    await store.close()
    await set.stop()
  })
})
