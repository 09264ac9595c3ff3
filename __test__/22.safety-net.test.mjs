import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startProxy } from "../testing/proxy.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { Redis } = require("ioredis")
const quiet = (client) => client.on("error", () => {})
const session = (n) => ({ cookie: {}, n })
const answered = (promise) =>
  promise.then(
    () => "ok",
    (error) => error.code,
  )

describe("requests that wait for the first connection", () => {
  const server = ownServer()
  const connected = async () => {
    const client = quiet(new Redis({ host: "127.0.0.1", port: server.port }))
    await client.ping()
    return client
  }

  for (const [option, limits, message] of [
    ["maxPending", { maxPending: 5 }, /^5 requests are pending already \(option "maxPending"\)/],
    [
      "maxPendingBytes",
      { maxPendingBytes: 1000 },
      /^1000 bytes of requests are pending already \(option "maxPendingBytes"\)/,
    ],
  ]) {
    test(`are limited by ${option}, and keep their order`, async () => {
      const client = await connected()
      const prefix = ownPrefix()
      const store = new RedisStore({ client, prefix, ...limits })
      const answers = []
      await Promise.all(
        Array.from({ length: 50 }, (_, n) =>
          store.set("sid", session(n)).then(
            () => answers.push(n),
            (error) => {
              assert.equal(error.code, "ERR_REDIS_STORE_QUEUE_FULL")
              assert.match(error.message, message)
            },
          ),
        ),
      )
      assert.ok(answers.length > 0 && answers.length < 50)
      assert.equal(JSON.parse(await client.get(`${prefix}sid`)).n, answers.at(-1))
      assert.equal(store.stats().commands.set.ERR_REDIS_STORE_QUEUE_FULL, 50 - answers.length)
      await store.close()
      client.disconnect()
    })
  }

  test("fail with the error of the backend that they were sent to", async () => {
    const replica = await startServer({ args: ["--replicaof", "127.0.0.1", server.port] })
    const client = quiet(new Redis({ host: "127.0.0.1", port: replica.port }))
    await client.ping()
    const store = new RedisStore({ client, prefix: ownPrefix(), commandTimeoutMs: 600 })
    await assert.rejects(store.set("sid", session(1)), { code: "ERR_REDIS_STORE_SERVER", message: /READONLY/ })
    await store.close()
    client.disconnect()
    await replica.stop()
  })

  test("fail without waiting for their deadline while the server is frozen", async () => {
    const proxy = await startProxy(server.port)
    const client = quiet(new Redis({ host: "127.0.0.1", port: proxy.port }))
    await client.ping()
    const options = { client, prefix: ownPrefix(), commandTimeoutMs: 20_000, connectTimeoutMs: 300 }
    const store = new RedisStore(options)
    await store.ping()
    proxy.hold()
    const opened = until("an open circuit", () => store.status === "down", 60_000)
    const first = answered(store.get("sid"))
    await opened
    // A timeout would have another code.
    assert.equal(await answered(store.set("sid", session(1))), "ERR_REDIS_STORE_CONNECT")
    assert.equal(store.native, true)
    proxy.release()
    await first
    await until("service", async () => (await answered(store.set("sid", session(2)))) === "ok", 20_000)
    await store.close()
    client.disconnect()
    proxy.stop()
  })
})

describe("credentials that end", () => {
  const server = ownServer()
  const setPasswords = (...passwords) =>
    server.client.sendCommand([
      "ACL",
      "SETUSER",
      "app",
      "on",
      "resetpass",
      ...passwords.map((each) => `>${each}`),
      "~*",
      "+@all",
    ])
  const open = async (password, options) => {
    const client = quiet(new Redis({ host: "127.0.0.1", port: server.port, username: "app", password, ...options }))
    await client.ping()
    return client
  }
  /** Ends the connections of the user, but not that of `client`. */
  const dropOthers = async (client) => {
    const own = String(await client.client("ID"))
    const lines = (await server.client.sendCommand(["CLIENT", "LIST"])).split("\n")
    for (const line of lines.filter((each) => each.includes(" user=app "))) {
      const [, id] = /^id=(\d+)/.exec(line)
      if (id !== own) await server.client.sendCommand(["CLIENT", "KILL", "ID", id])
    }
  }

  test("fail no request while the client is connected", async () => {
    await setPasswords("first")
    const client = await open("first")
    const store = new RedisStore({ client, prefix: ownPrefix() })
    await store.ping()
    await setPasswords("second")
    const codes = new Set()
    let isRunning = true
    const users = Array.from({ length: 20 }, async (_, user) => {
      for (let n = 0; isRunning; n++) {
        const code = await answered(store.set(`sid${user}`, session(n)))
        codes.add(code)
        if (code === "ok") assert.equal((await store.get(`sid${user}`).catch(() => ({ n }))).n, n)
      }
    })
    await dropOthers(client)
    await until("the client to serve", () => !store.native)
    isRunning = false
    await Promise.all(users)
    // Requests on the wire may fail: it is unknown whether they were executed.
    codes.delete("ERR_REDIS_STORE_CONNECT")
    assert.deepEqual([...codes], ["ok"])
    await store.close()
    client.disconnect()
  })

  test("and become valid again: a write in the client's queue does not overwrite later ones", async () => {
    await setPasswords("second")
    const client = await open("second", { retryStrategy: () => 1500, maxRetriesPerRequest: null })
    // The native backend logs in with the credentials that the client connected with.
    client.condition.auth = ["app", "first"]
    const prefix = ownPrefix()
    const store = new RedisStore({ client, prefix, commandTimeoutMs: 1000 })
    await store.ping()
    assert.equal(store.native, false)
    const closed = new Promise((resolve) => client.once("close", resolve))
    const id = await client.client("ID")
    await server.client.sendCommand(["CLIENT", "KILL", "ID", String(id)])
    await closed
    assert.equal(await answered(store.set("sid", session(1))), "ERR_REDIS_STORE_TIMEOUT")
    await setPasswords("second", "first")
    let last = 1
    await until("an acknowledged write", async () => (await answered(store.set("sid", session(++last)))) === "ok")
    await until("the client to come back", () => client.status === "ready")
    await client.ping()
    assert.equal(JSON.parse(await server.client.get(`${prefix}sid`)).n, last)
    await until("the native connection", () => store.native)
    await store.close()
    client.disconnect()
  })
})

describe("a cluster with one dead master", () => {
  let cluster
  const clients = {}
  let healthy
  before(async () => {
    cluster = await startCluster({ replicas: 0 })
    for (const { port } of cluster.servers) {
      await cluster.command(port, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    }
    const nodes = () => cluster.nodes.map((node) => ({ ...node }))
    clients.ioredis = quiet(new Redis.Cluster(nodes()))
    await clients.ioredis.ping()
    clients.redis = quiet(createCluster({ rootNodes: nodes().map((socket) => ({ socket })) }))
    await clients.redis.connect()
    for (let n = 0; healthy === undefined; n++) {
      const slot = Number(await cluster.command(cluster.masters[0].port, "CLUSTER", "KEYSLOT", `sess:${n}`))
      if (slot < 5000) healthy = String(n)
    }
  })
  after(async () => {
    for (const client of Object.values(clients)) client.disconnect()
    await cluster.stop()
  })

  test("serves the sessions of the others natively, before and after a store starts", async () => {
    const running = Object.values(clients).map((client) => new RedisStore({ client }))
    for (const store of running) await store.set(healthy, session(0))
    for (const store of running) assert.equal(store.native, true)
    cluster.masters[2].process.kill("SIGKILL")
    for (const store of running) await until("the loss to be noticed", () => store.status !== "ready")
    const started = Object.values(clients).map((client) => new RedisStore({ client }))
    for (const store of [...running, ...started]) {
      for (let n = 1; n < 100; n++) {
        await store.set(healthy, session(n))
        assert.equal((await store.get(healthy)).n, n)
      }
      assert.equal(store.native, true)
    }
    await Promise.all([...running, ...started].map((store) => store.close()))
  })
})
