import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster, startSentinels } from "../testing/topologies.mjs"
import { startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const Ioredis = (name) => require(name).default ?? require(name)

let server
let cluster
let sentinels
before(async () => {
  ;[server, cluster, sentinels] = await Promise.all([startServer(), startCluster({ replicas: 0 }), startSentinels()])
})
after(() => Promise.all([server.stop(), cluster.stop(), sentinels.stop()]))

const host = "127.0.0.1"
const nodes = () => cluster.nodes.map((node) => ({ ...node }))
const natMap = { "elsewhere:1": { host, port: 1 } }
const localAddress = host

/** Each opens a client with a prefix. With `delegates` it also sets an option that makes the store delegate. */
const CLIENTS = {}
for (const name of ["redis-4", "redis-5", "redis"]) {
  const { createClient, createClientPool, createCluster, createSentinel } = require(name)
  const socket = (delegates) => ({ host, port: server.port, ...(delegates && { localAddress }) })
  CLIENTS[`${name}`] = (delegates) => createClient({ keyPrefix: "A:", socket: socket(delegates) })
  const rootNodes = () => nodes().map((node) => ({ socket: node }))
  const defaults = (delegates) => (delegates ? { socket: { localAddress } } : {})
  CLIENTS[`${name} cluster`] = (delegates) =>
    createCluster({ rootNodes: rootNodes(), keyPrefix: "A:", defaults: defaults(delegates) })
  CLIENTS[`${name} cluster, of its nodes`] = (delegates) =>
    createCluster({ rootNodes: rootNodes(), defaults: { keyPrefix: "B:", ...defaults(delegates) } })
  if (createClientPool !== undefined) {
    CLIENTS[`${name} pool`] = (delegates) => createClientPool({ keyPrefix: "A:", socket: socket(delegates) })
  }
  if (createSentinel !== undefined) {
    CLIENTS[`${name} sentinel`] = (delegates) =>
      createSentinel({
        name: sentinels.name,
        sentinelRootNodes: sentinels.nodes.map((node) => ({ ...node })),
        keyPrefix: "A:",
        nodeClientOptions: defaults(delegates),
      })
    CLIENTS[`${name} sentinel, of its nodes`] = (delegates) =>
      createSentinel({
        name: sentinels.name,
        sentinelRootNodes: sentinels.nodes.map((node) => ({ ...node })),
        nodeClientOptions: { keyPrefix: "B:", ...defaults(delegates) },
      })
  }
}
for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
  const Redis = Ioredis(name)
  CLIENTS[name] = (delegates) =>
    new Redis({ host, port: server.port, keyPrefix: "A:", ...(delegates && { localAddress }) })
  CLIENTS[`${name} sentinel`] = (delegates) =>
    new Redis({
      sentinels: sentinels.nodes.map((node) => ({ ...node })),
      name: sentinels.name,
      keyPrefix: "A:",
      ...(delegates && { natMap }),
    })
  for (const options of [
    { keyPrefix: "A:" },
    { redisOptions: { keyPrefix: "B:" } },
    { keyPrefix: "A:", redisOptions: { keyPrefix: "B:" } },
  ]) {
    CLIENTS[`${name} cluster ${JSON.stringify(options)}`] = (delegates) =>
      new Redis.Cluster(nodes(), { ...options, ...(delegates && { natMap }) })
  }
}
for (const name of ["redis-2", "redis-3"]) {
  CLIENTS[name] = (delegates) =>
    require(name).createClient({
      host,
      port: server.port,
      prefix: "A:",
      ...(delegates && { rename_commands: { unused: "hidden" } }),
    })
}

describe("the store writes where its client does, with the client's prefix", () => {
  const lookers = []
  before(async () => {
    for (const { url } of [server, sentinels.master, ...cluster.masters]) {
      lookers.push(await createClient({ url }).connect())
    }
  })
  after(() => {
    for (const looker of lookers) looker.destroy()
  })
  const keys = async (end) => (await Promise.all(lookers.map((looker) => looker.keys(`*${end}`)))).flat()

  let count = 0
  for (const [name, open] of Object.entries(CLIENTS)) {
    for (const delegates of [false, true]) {
      test(`${name}, ${delegates ? "delegated" : "native"}`, async (t) => {
        const id = `${++count}.`
        const client = open(delegates)
        client.on("error", () => {})
        t.after(() =>
          client.connection_options ? client.end(true) : (client.destroy ?? client.disconnect).call(client),
        )
        if (client.isOpen === false) await client.connect()
        await new Promise((resolve, reject) => {
          const written = client.set(`client${id}`, "1", (error) => (error ? reject(error) : resolve()))
          written?.then?.(resolve, reject)
        })
        const store = new RedisStore({ client, prefix: "store" })
        // redis 5 does not expose the options of sentinels.
        assert.equal(store.native, !delegates && !name.startsWith("redis-5 sentinel"))
        await store.set(id, { cookie: {} })
        const [[clients], stores] = await Promise.all([keys(`client${id}`), keys(`store${id}`)])
        assert.deepEqual(stores, [clients.replace("client", "store")])
        await store.destroy(id)
        assert.deepEqual(await keys(`store${id}`), [])
        await store.close()
      })
    }
  }
})

test("ioredis-mock with a prefix: listed and cleared", async () => {
  const Mock = require("ioredis-mock")
  const client = new Mock({ keyPrefix: "A:" })
  const store = new RedisStore({ client, prefix: "store:" })
  await store.set("a", { cookie: {}, n: 1 })
  assert.deepEqual(await client.keys("*"), ["A:store:a"])
  assert.deepEqual([await store.length(), await store.ids()], [1, ["a"]])
  assert.equal((await store.all())[0].n, 1)
  await store.clear()
  assert.equal(await store.get("a"), null)
  await store.close()
  client.disconnect()
})
