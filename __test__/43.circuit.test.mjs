import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import express from "express"
import session from "express-session"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { script } from "./support/script.mjs"
import { startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const data = { cookie: {}, user: "ada" }

/** The answer of the native half after a bug: one row with the notice of a crash. */
const CRASHED = (() => {
  const { answers, notices } = require("../lib/native/protocol.js").loadProtocol()
  return [1, 0, -1, answers.notice, notices.indexOf("crashed")]
})()

function open(options) {
  const store = new RedisStore({ commandTimeoutMs: 500, ...options })
  const events = []
  for (const name of ["ready", "reconnecting", "end", "connect", "disconnect"]) {
    store.on(name, () => events.push(`${name} (${store.status})`))
  }
  return { store, events }
}

describe("the circuit breaker", () => {
  test("opens when Redis stays down, refuses requests at once, and closes when Redis is back", async () => {
    const first = await startServer()
    const { store, events } = open({ url: first.url })
    const errors = []
    assert.equal(store.status, "connecting")
    await store.set("sid", data)
    assert.equal(store.status, "ready")
    store.on("error", (error) => errors.push(error))
    await first.stop()
    await until("the circuit is open", () => store.status === "down")
    const refused = await Promise.allSettled(Array.from({ length: 64 }, () => store.get("sid")))
    for (const { reason } of refused) {
      assert.equal(reason.code, "ERR_REDIS_STORE_CONNECT")
      assert.match(reason.message, /requests are refused until it does/)
    }
    const second = await startServer({ port: first.port })
    await until("the circuit is closed", () => store.status === "ready")
    assert.equal(await store.get("sid"), null)
    await store.close()
    await store.close()
    assert.deepEqual(events, ["ready (ready)", "reconnecting (connecting)", "ready (ready)", "end (closed)"])
    assert.ok(errors.length > 1)
    for (const { code } of errors) assert.equal(code, "ERR_REDIS_STORE_CONNECT")
    await second.stop()
  })

  test("opens when a connected Redis does not reply", async () => {
    const server = await startServer()
    const { store } = open({ url: server.url })
    await store.set("sid", data)
    server.process.kill("SIGSTOP")
    const late = await Promise.allSettled(Array.from({ length: 64 }, () => store.get("sid")))
    for (const { reason } of late) assert.equal(reason.code, "ERR_REDIS_STORE_TIMEOUT")
    await until("the circuit is open", () => store.status === "down")
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_CONNECT" })
    server.process.kill("SIGCONT")
    await until("the circuit is closed", () => store.status === "ready")
    assert.deepEqual(await store.get("sid"), data)
    await store.close()
    await server.stop()
  })

  test("without a listener an error does not end the process, and no events are emitted by default, as with connect-redis", async () => {
    const server = await startServer()
    const { store, events } = open({ url: server.url })
    await store.set("sid", data)
    await server.stop()
    await until("the circuit is open", () => store.status === "down")
    assert.ok(!events.some((event) => /connect \(/.test(event) && !event.startsWith("re")))
    await store.close()
  })

  test("a listener that throws is an uncaught exception, and all requests are answered", async () => {
    const server = await startServer()
    const { printed } = await script(
      `const store = new RedisStore({ url: "${server.url}" })
      process.once("uncaughtException", (error) => console.log(error.message))
      store.on("ready", () => { throw new Error("a listener's own") })
      console.log(await store.set("sid", { cookie: {} }))
      await store.close()`,
    )
    assert.deepEqual(printed.split("\n").sort(), ["", "a listener's own", "null"])
    await server.stop()
  })
})

test("with emitConnectionEvents an Express app serves without sessions while Redis is down, and with them afterwards", async () => {
  let server = await startServer()
  const { store, events } = open({ url: server.url, emitConnectionEvents: true })
  const app = express()
  app.set("env", "test")
  app.use(session({ store, secret: "s", resave: false, saveUninitialized: true }))
  app.get("/", (req, res) => res.send(req.session === undefined ? "without" : "with"))
  const listener = app.listen(0, "127.0.0.1")
  await new Promise((resolve) => listener.once("listening", resolve))
  const page = async () => (await fetch(`http://127.0.0.1:${listener.address().port}/`)).text()
  assert.equal(await page(), "with")
  for (let times = 0; times < 2; times++) {
    await server.stop()
    await until("a request without a session", async () => (await page()) === "without")
    server = await startServer({ port: server.port })
    await until("a request with a session", async () => (await page()) === "with")
  }
  const said = events.map((event) => event.split(" ")[0]).filter((event) => /^(dis)?connect$/.test(event))
  assert.deepEqual(said, ["connect", "disconnect", "connect", "disconnect", "connect"])
  listener.close()
  listener.closeAllConnections()
  await store.close()
  await server.stop()
})

test("a script that fails while the store closes leaves no save unanswered", async () => {
  const MERGE = 10
  const server = await startServer()
  const other = new RedisStore({ url: server.url })
  const binding = require("../lib/native/load.js").load()
  const { sealingFactor } = require("../lib/native/protocol.js").loadProtocol()
  const Native = binding.RedisStore
  binding.RedisStore = class {
    constructor(settings, wake, ask) {
      this.native = new Native(settings, () => wake(), ask)
      this.wake = wake
    }
    addSealing(sealing, prefixBytes) {
      return this.native.addSealing(sealing, prefixBytes)
    }
    submit(count, used, rows, text) {
      this.crashed = rows[1] % sealingFactor === MERGE
      if (this.crashed) setImmediate(this.wake)
      else this.native.submit(count, used, rows, text)
    }
    drain(answers, pending) {
      if (!this.crashed) return this.native.drain(answers, pending)
      answers.set(CRASHED)
      return ["src/engine/larger.rs:1:1"]
    }
    close(id) {
      this.native.close(id)
    }
  }
  try {
    const store = new RedisStore({ url: server.url, onConflict: "merge" })
    await store.set("sid", data)
    const load = async () => store.createSession({ sessionID: "sid", sessionStore: store }, await store.get("sid"))
    const sessions = [await load(), await load()]
    await other.set("sid", { ...data, other: true })
    const saved = Promise.allSettled(sessions.map((session, n) => store.set("sid", Object.assign(session, { n }))))
    const closed = store.close()
    const codes = (await saved).map(({ reason }) => reason?.code)
    assert.deepEqual(codes, ["ERR_REDIS_STORE_CONNECT", "ERR_REDIS_STORE_CLOSED"])
    await closed
    assert.equal(store.stats().pending, 0)
  } finally {
    binding.RedisStore = Native
  }
  await other.close()
  await server.stop()
})

test("a failure of the native half fails pending requests, and the next request starts a new one", async () => {
  const server = await startServer()
  const binding = require("../lib/native/load.js").load()
  const Native = binding.RedisStore
  const started = []
  // The answer after a bug: one row with the notice of a crash.
  binding.RedisStore = class {
    constructor(settings, wake, ask) {
      this.native = new Native(settings, () => wake(), ask)
      this.wake = wake
      started.push(this)
    }
    submit(...batch) {
      if (started.length > 1) return this.native.submit(...batch)
      this.crashed = true
      setImmediate(this.wake)
    }
    drain(answers, pending) {
      if (!this.crashed) return this.native.drain(answers, pending)
      answers.set(CRASHED)
      return ["src/engine/worker.rs:1:1"]
    }
    close(id) {
      this.native.close(id)
    }
  }
  try {
    const store = new RedisStore({ url: server.url })
    const failed = await Promise.allSettled([store.set("sid", data), store.get("sid")])
    for (const { reason } of failed) {
      assert.equal(reason.code, "ERR_REDIS_STORE_CONNECT")
      assert.match(reason.message, /failed \(src\/engine\/worker\.rs:1:1\) and was restarted/)
    }
    assert.equal(await store.set("sid", data), null)
    assert.deepEqual(await store.get("sid"), data)
    assert.equal(started.length, 2)
    await store.close()
  } finally {
    binding.RedisStore = Native
  }
  await server.stop()
})
