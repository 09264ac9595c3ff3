// The application's client stands in for a native connection that cannot be opened.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { createRequire } from "node:module"
import { describe, test } from "node:test"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

import Redis from "ioredis"

import { RedisStore } from "../index.mjs"
import { startForwarder } from "../testing/forwarder.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { SafetyNet } = require("../lib/clients/safety-net.js")
const { ask } = require("../lib/request.js")
const server = ownServer()

/** Refuses new connections. */
async function closeDoor(client) {
  const connected = /connected_clients:(\d+)/.exec(await client.info("clients"))[1]
  await client.configSet("maxclients", connected)
}

async function connected(options) {
  const client = new Redis({ host: "127.0.0.1", ...options })
  client.on("error", () => {})
  await until("the client", () => client.status === "ready")
  return client
}

describe("a store that is served by the client", () => {
  test("emits ready once, and not again for its own connection", async () => {
    const client = await connected({ port: server.port })
    await closeDoor(server.client)
    const store = new RedisStore({ client, prefix: ownPrefix() })
    const seen = []
    store.on("ready", () => seen.push(store.native))
    store.on("error", () => {})
    await store.set("sid", { cookie: {} })
    await until("the client to serve", () => !store.native && store.status === "ready")
    await until("the event", () => seen.length > 0)
    await server.client.configSet("maxclients", "10000")
    await until("the native connection", () => store.native)
    assert.deepEqual(await store.get("sid"), { cookie: {} })
    await store.close()
    assert.deepEqual(seen, [false])
    client.disconnect()
  })

  test("emits connect after disconnect", async () => {
    const first = await startServer()
    let restarted = false
    // The restarted server has room for the client alone.
    const isClient = ({ remotePort }) => until("its port", () => client.stream?.localPort).then((p) => p === remotePort)
    const address = await startForwarder(first.port, { admits: (socket) => !restarted || isClient(socket) })
    const client = await connected({ port: address.port, retryStrategy: () => 20 })
    const store = new RedisStore({ client, emitConnectionEvents: true })
    const seen = []
    for (const event of ["connect", "disconnect"]) store.on(event, () => seen.push(event))
    await store.get("sid")
    await until("connect", () => seen.length === 1)
    await first.stop()
    await until("disconnect", () => store.get("sid").catch(() => {}) && seen.length === 2)
    restarted = true
    const second = await startServer({ port: first.port })
    await until("connect", () => store.get("sid").catch(() => {}) && seen.length === 3)
    assert.deepEqual(seen, ["connect", "disconnect", "connect"])
    assert.equal(store.native, false)
    await store.close()
    client.disconnect()
    address.stop()
    await second.stop()
  })

  test("close() waits for whole requests of the client", async () => {
    const client = await connected({ port: server.port })
    await closeDoor(server.client)
    const store = new RedisStore({ client, prefix: ownPrefix() })
    try {
      for (let n = 0; n < 40; n++) await store.set(`s${n}`, { cookie: {} })
      await until("the client to serve", () => !store.native)
      const [all, cleared] = [store.all(), store.clear()]
      const closed = store.close()
      await assert.rejects(store.get("s1"), { code: "ERR_REDIS_STORE_CLOSED" })
      assert.ok(Array.isArray(await all))
      await cleared
      await closed
      assert.equal(store.status, "closed")
      assert.equal(await server.client.exists(`${store.prefix}s1`), 0)
    } finally {
      await server.client.configSet("maxclients", "10000")
      client.disconnect()
    }
  })
})

test("close() waits for every page of all()", async () => {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix() })
  for (let n = 0; n < 100; n++) await store.set(`s${n}`, { cookie: {} })
  const all = store.all()
  const closed = store.close()
  await assert.rejects(store.all(), { code: "ERR_REDIS_STORE_CLOSED" })
  assert.equal((await all).length, 100)
  await closed
})

test("a request that is held until its deadline is not sent later", async () => {
  const sent = []
  let tell
  const openNative = (listener) => {
    tell = listener
    const send = (_operation, key, _value, _number, request) => {
      sent.push(key)
      request.settle(null, "text")
    }
    return { pending: 0, status: "connecting", connect() {}, send }
  }
  const openDelegate = () => ({ pending: 0, unsettledWrites: 0, status: "ready" })
  const limits = { commandTimeoutMs: 20, maxPending: 10, maxPendingBytes: 1000 }
  const net = new SafetyNet({ isReady: false }, openNative, openDelegate, limits, () => {})
  await assert.rejects(
    ask((request) => net.send("get", "late", "", 0, request)),
    { code: "ERR_REDIS_STORE_CONNECT" },
  )
  const waiting = ask((request) => net.send("get", "in time", "", 0, request))
  tell("ready")
  assert.equal(await waiting, "text")
  assert.deepEqual(sent, ["in time"])
})

test("a store that is dropped leaves no timer", async () => {
  // The package takes its timers when it is loaded.
  const code = `
    const timers = require("node:timers")
    const running = new Set()
    const { setInterval, clearInterval } = timers
    timers.setInterval = (...args) => {
      const timer = setInterval(...args)
      if (args[1] < 1000) running.add(timer)
      return timer
    }
    timers.clearInterval = (timer) => running.delete(timer) | clearInterval(timer)
    const { SafetyNet } = require("./lib/clients/safety-net.js")
    const limits = { commandTimeoutMs: 20, maxPending: 10, maxPendingBytes: 1000 }
    const native = () => ({ pending: 0, status: "connecting", connect() {}, send() {} })
    const delegate = () => ({ pending: 0, unsettledWrites: 0, status: "ready" })
    const use = () => {
      const net = new SafetyNet({ isReady: false }, native, delegate, limits, () => {})
      return new Promise((resolve) => net.send("get", "a", "", 0, { settle: resolve }))
    }
    Promise.all(Array.from({ length: 5 }, use)).then(async () => {
      console.log(running.size > 0)
      const deadline = Date.now() + 5000
      while (running.size > 0 && Date.now() < deadline) {
        gc()
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      console.log(running.size)
    })
  `
  const cwd = fileURLToPath(new URL("..", import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, ["--expose-gc", "--eval", code], { cwd })
  assert.equal(stdout, "true\n0\n")
})
