import assert from "node:assert/strict"
import { AsyncLocalStorage } from "node:async_hooks"
import { channel, tracingChannel } from "node:diagnostics_channel"
import { after, describe, test } from "node:test"
import { inspect } from "node:util"

import { SpanKind, SpanStatusCode, context, trace } from "@opentelemetry/api"
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks"
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { createClient } from "redis"

import { traceRedisStore } from "../examples/opentelemetry/trace-redis-store.mjs"
import { metrics } from "../examples/prometheus/metrics.mjs"
import { RedisStore } from "../index.mjs"
import { called, until } from "../testing/until.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { startProxy } from "../testing/proxy.mjs"
import { script } from "./support/script.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const TIMEOUT = "ERR_REDIS_STORE_TIMEOUT"
const session = { cookie: { originalMaxAge: null } }

const server = ownServer()
const opened = []
after(() => Promise.all(opened.map((store) => store.close())))

function open(options) {
  const store = new RedisStore({ prefix: ownPrefix(), ...(!options?.client && { url: server.url }), ...options })
  opened.push(store)
  return store
}

/** A client of an unknown kind, to which the store delegates. */
async function stranger(url = server.url) {
  const client = await createClient({ url })
    .on("error", () => {})
    .connect()
  after(() => client.destroy())
  const NAMES = ["get", "set", "pExpire", "pTTL", "del", "mGet", "scan", "ping"]
  return Object.fromEntries(NAMES.map((name) => [name, (...args) => client[name](...args)]))
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0)

describe("stats", () => {
  const KINDS = {
    native: async () => open(),
    delegated: async () => open({ client: await stranger() }),
  }
  for (const [kind, make] of Object.entries(KINDS)) {
    test(`count the commands of a ${kind} store exactly`, async () => {
      const store = await make()
      assert.equal(store.native, kind === "native")
      await store.set("a", session)
      await store.set("b", session)
      await store.get("a")
      await store.get("miss")
      await store.touch("a", session)
      await store.destroy("b")
      await assert.rejects(store.get({}), { code: "ERR_REDIS_STORE_OPTIONS" })
      assert.equal(await store.length(), 1)
      assert.equal((await store.all()).length, 1)
      await store.clear()
      await store.ping()
      const { commands, latency, pending } = store.stats()
      assert.deepEqual(commands, {
        // Markers: clear() writes one. A store that delegates sends them as separate commands.
        set: { ok: kind === "native" ? 3 : 6 },
        get: { ok: 2 },
        pexpire: { ok: 1 },
        mget: { ok: 1 },
        scan: { ok: 3 },
        ping: { ok: 1 },
        // The native clear uses UNLINK, which not every client has.
        ...(kind === "native" ? { del: { ok: 1 }, unlink: { ok: 1 } } : { del: { ok: 2 } }),
      })
      assert.equal(sum(latency.counts), kind === "native" ? 13 : 16)
      assert.ok(latency.sumMs > 0)
      assert.equal(latency.counts.length, latency.boundsMs.length + 1)
      assert.equal(pending, 0)
    })
  }

  test("are available before the first request and after close()", async () => {
    const store = open()
    assert.deepEqual(store.stats().commands, {})
    await store.get("a")
    const before = store.stats()
    await store.close()
    await assert.rejects(store.get("a"), { code: "ERR_REDIS_STORE_CLOSED" })
    const { commands, latency, bytesSent, bytesReceived } = store.stats()
    assert.deepEqual(commands, { get: { ok: 1, ERR_REDIS_STORE_CLOSED: 1 } })
    assert.deepEqual(latency, before.latency)
    assert.deepEqual([bytesSent, bytesReceived], [before.bytesSent, before.bytesReceived])
    assert.deepEqual(JSON.parse(JSON.stringify(before)), before)
  })

  test("count batches, and the bytes of commands and replies", async () => {
    const store = open({ prefix: "bytes:" })
    await store.get("a")
    const before = store.stats()
    await Promise.all([store.get("b"), store.get("c"), store.get("d")])
    const stats = store.stats()
    assert.equal(stats.batches, before.batches + 1)
    assert.equal(stats.bytesSent - before.bytesSent, 3 * "*2\r\n$3\r\nGET\r\n$7\r\nbytes:b\r\n".length)
    assert.equal(stats.bytesReceived - before.bytesReceived, 3 * "$-1\r\n".length)
  })

  test("count a request as pending until its callback is called", async () => {
    const store = open()
    const answers = [store.get("a"), store.get("b")]
    assert.equal(store.stats().pending, 2)
    await Promise.all(answers)
    assert.equal(store.stats().pending, 0)
  })

  test("count each missed deadline once, with its latency", async () => {
    const proxy = await startProxy(server.port)
    const store = open({ url: proxy.url, commandTimeoutMs: 120 })
    await store.get("a")
    proxy.hold()
    await Promise.allSettled([store.get("a"), store.set("a", session)])
    proxy.release()
    await until("an answer", () => store.get("a").catch(() => false) ?? true)
    const { commands, latency } = store.stats()
    assert.deepEqual([commands.get[TIMEOUT], commands.set], [1, { [TIMEOUT]: 1 }])
    const late = latency.boundsMs.indexOf(100) + 1
    assert.ok(sum(latency.counts.slice(late)) >= 2)
    assert.ok(latency.sumMs >= 240)
    await store.close()
    proxy.stop()
  })

  test("count requests that Redis refuses by their error code", async () => {
    const full = await startServer({ args: ["--maxmemory", "1", "--maxmemory-policy", "noeviction"] })
    for (const store of [open({ url: full.url }), open({ client: await stranger(full.url) })]) {
      await assert.rejects(store.set("a", session), { code: "ERR_REDIS_STORE_SERVER" })
      assert.equal(await store.get("a"), null)
      assert.deepEqual(store.stats().commands, { set: { ERR_REDIS_STORE_SERVER: 1 }, get: { ok: 1 } })
      assert.equal(sum(store.stats().latency.counts), 2)
      await store.close()
    }
    await full.stop()
  })

  test("count requests that never reach Redis, without a latency", async () => {
    const store = open({ maxPending: 1 })
    const bytes = open({ maxPendingBytes: 1 })
    const delegate = open({ maxPending: 1, client: await stranger() })
    for (const one of [store, delegate]) {
      await Promise.allSettled([one.get("a"), one.get("b"), one.get("c")])
      assert.deepEqual(one.stats().commands, { get: { ok: 1, ERR_REDIS_STORE_QUEUE_FULL: 2 } })
      assert.equal(sum(one.stats().latency.counts), 1)
    }
    await assert.rejects(bytes.get("a"), { code: "ERR_REDIS_STORE_QUEUE_FULL" })
    assert.deepEqual(bytes.stats().commands, { get: { ERR_REDIS_STORE_QUEUE_FULL: 1 } })
  })

  test("count the PTTL of freshExpires", async () => {
    const store = open({ freshExpires: true })
    await store.get("a")
    assert.deepEqual(store.stats().commands, { get: { ok: 1 }, pttl: { ok: 1 } })
  })

  test("count touches that touchAfter skips separately", async () => {
    const store = open({ touchAfter: 60 })
    await store.set("a", session)
    for (let times = 0; times < 3; times++) await store.touch("a", session)
    assert.deepEqual(store.stats().commands, { set: { ok: 1 }, pexpire: { spared: 3 } })
  })

  test("count a lost connection, and a repeated command once", async () => {
    const proxy = await startProxy(server.port)
    const store = open({ url: proxy.url })
    await store.get("a")
    assert.equal(store.stats().reconnects, 0)
    proxy.reset()
    await store.get("a")
    await until("a second connection", () => store.stats().reconnects === 1)
    assert.deepEqual(store.stats().commands, { get: { ok: 2 } })
    await store.close()
    proxy.stop()
  })

  test("count the commands of saves that compare and merge", async () => {
    const store = open({ onConflict: "merge" })
    const other = open({ prefix: store.prefix })
    await store.set("a", { ...session, n: 1 })
    const loaded = store.createSession({ sessionID: "a" }, await store.get("a"))
    await other.set("a", { ...session, n: 1, m: 1 })
    loaded.l = 1
    await store.set("a", loaded)
    assert.deepEqual(store.stats().commands, { set: { ok: 1 }, get: { ok: 1 }, evalsha: { ok: 2 } })
    // A server that has forgotten the script receives it with the next save.
    await server.client.sendCommand(["SCRIPT", "FLUSH"])
    await store.set("b", session)
    await store.set("b", store.createSession({ sessionID: "b" }, await store.get("b")))
    assert.deepEqual(store.stats().commands, { set: { ok: 2 }, get: { ok: 2 }, evalsha: { ok: 2 }, eval: { ok: 1 } })
  })
})

describe("ping", () => {
  test("calls back with PONG, or resolves to it", async () => {
    for (const store of [open(), open({ client: await stranger() })]) {
      assert.deepEqual(await called((done) => store.ping(done)), [null, "PONG"])
      assert.equal(await store.ping(), "PONG")
    }
  })

  test("fails if Redis does not reply: by the deadline, then at once", async () => {
    const frozen = await startServer()
    const store = open({ url: frozen.url, commandTimeoutMs: 150 })
    await store.ping()
    frozen.process.kill("SIGSTOP")
    await Promise.all([1, 2, 3].map(() => assert.rejects(store.ping(), { code: TIMEOUT })))
    await until("the circuit is open", () => store.status === "down")
    await assert.rejects(store.ping(), { code: "ERR_REDIS_STORE_CONNECT", message: /requests are refused/ })
    frozen.process.kill("SIGCONT")
    await until("an answer", () => store.ping().catch(() => false))
    await store.close()
    await frozen.stop()
  })

  test("fails by the deadline if the client does not answer, and reads a key if the client has no ping()", async () => {
    const silent = { ...(await stranger()), ping: () => new Promise(() => {}) }
    await assert.rejects(open({ client: silent, commandTimeoutMs: 50 }).ping(), { code: TIMEOUT })
    assert.equal(await open({ client: { ...silent, ping: undefined } }).ping(), "PONG")
    const mute = { ...silent, ping: undefined, get: () => new Promise(() => {}) }
    await assert.rejects(open({ client: mute, commandTimeoutMs: 50 }).ping(), { code: TIMEOUT })
  })

  test("fails if the store is closed", async () => {
    for (const store of [open(), open({ client: await stranger() })]) {
      await store.close()
      await assert.rejects(store.ping(), { code: "ERR_REDIS_STORE_CLOSED" })
    }
  })

  test("reaches every master of a cluster", async () => {
    const cluster = await startCluster({ replicas: 0 })
    const store = open({ url: undefined, nodes: cluster.nodes, commandTimeoutMs: 500 })
    assert.equal(await store.ping(), "PONG")
    assert.deepEqual(store.stats().commands, { ping: { ok: 3 } })
    const [, , third] = cluster.servers
    third.process.kill("SIGSTOP")
    await assert.rejects(store.ping(), { code: TIMEOUT })
    third.process.kill("SIGCONT")
    await store.close()
    await cluster.stop()
  })
})

describe("the tracing channel", () => {
  const commands = tracingChannel("connect-redis-native:command")

  /** Runs `act` and returns the messages of the channel meanwhile. */
  async function listening(act, more) {
    const events = []
    const tell = (name) => (message) => {
      events.push([name, message])
      more?.(name, message)
    }
    const names = ["start", "end", "asyncStart", "asyncEnd", "error"]
    const subscribers = Object.fromEntries(names.map((name) => [name, tell(name)]))
    commands.subscribe(subscribers)
    try {
      await act()
    } finally {
      commands.unsubscribe(subscribers)
    }
    return events
  }

  test("publishes one message before and after each command", async () => {
    const store = open()
    await store.ping()
    const events = await listening(() => Promise.all([store.set("a", session), store.get("b")]))
    const of = (command) => events.filter(([, message]) => message.command === command)
    for (const command of ["set", "get"]) {
      assert.deepEqual(
        of(command).map(([name]) => name),
        ["start", "end", "asyncStart", "asyncEnd"],
      )
      assert.equal(new Set(of(command).map(([, message]) => message)).size, 1)
      const place = { host: "127.0.0.1", port: server.port, database: 0 }
      assert.deepEqual(of(command)[0][1], { command, server: place, batchSize: 2, outcome: "ok" })
    }
  })

  test("publishes each command of a save with several, and an operation on all keys once", async () => {
    const store = open({ freshExpires: true })
    await store.set("a", session)
    const events = await listening(async () => {
      await store.get("a")
      await store.all()
      await store.clear()
    })
    const begun = events.filter(([name]) => name === "start").map(([, message]) => message.command)
    assert.deepEqual(begun, ["get", "pttl", "scan", "mget", "scan"])
  })

  test("publishes errors without their cause, before the callback", async () => {
    const full = await startServer({ args: ["--maxmemory", "1"] })
    for (const store of [open({ url: full.url }), open({ client: await stranger(full.url) })]) {
      const order = []
      const events = await listening(
        () => called((done) => store.set("a", session, () => done(order.push("callback")))),
        (name) => order.push(name),
      )
      assert.deepEqual(order, ["start", "end", "error", "asyncStart", "callback", "asyncEnd"])
      const [, { outcome, error }] = events[0]
      assert.equal(outcome, "ERR_REDIS_STORE_SERVER")
      assert.deepEqual([error.code, error.cause], [outcome, undefined])
      await store.close()
    }
    await full.stop()
  })

  test("runs in the caller's context, and leaves it to the callback", async () => {
    const storage = new AsyncLocalStorage()
    for (const store of [open(), open({ client: await stranger() })]) {
      const seen = []
      await listening(
        () =>
          Promise.all(
            ["one", "two"].map((caller) =>
              storage.run(caller, () => called((done) => store.get(caller, () => done(seen.push(storage.getStore()))))),
            ),
          ),
        (name) => seen.push(`${name} ${storage.getStore()}`),
      )
      const times = (what) => seen.filter((one) => one === what).length
      for (const caller of ["one", "two"]) {
        for (const name of ["start", "end", "asyncStart", "asyncEnd"]) assert.equal(times(`${name} ${caller}`), 1)
        assert.equal(times(caller), 1)
      }
    }
  })

  test("binds stores, as tracers do", async () => {
    const storage = new AsyncLocalStorage()
    const store = open()
    commands.asyncStart.bindStore(storage, ({ command }) => `after ${command}`)
    try {
      const [found] = await called((done) => store.get("a", () => done(storage.getStore())))
      assert.equal(found, "after get")
    } finally {
      commands.asyncStart.unbindStore(storage)
    }
  })

  test("a callback that throws is an uncaught exception, and the trace ends", async () => {
    const { printed, exitCode } = await script(
      `import { tracingChannel } from "node:diagnostics_channel"
      tracingChannel("connect-redis-native:command").subscribe({ asyncEnd: () => console.log("ended") })
      process.on("uncaughtException", (error) => console.log(error.message))
      const store = new RedisStore({ url: "${server.url}" })
      await new Promise((resolve) => store.get("a", () => { resolve(); throw new Error("mine") }))
      await store.close()`,
    )
    assert.deepEqual([printed, exitCode], ["ended\nmine\n", 0])
  })
})

test("the connection channel publishes every event of a store, and its status", async () => {
  const messages = []
  const listener = (message) => messages.push(message)
  const connections = channel("connect-redis-native:connection")
  connections.subscribe(listener)
  const first = await startServer()
  const store = open({ url: first.url, commandTimeoutMs: 300 })
  await store.ping()
  await first.stop()
  await until("the circuit is open", () => store.status === "down")
  const second = await startServer({ port: first.port })
  await until("the circuit is closed", () => store.status === "ready")
  await until("the message", () => messages.at(-1).event === "ready")
  await store.close()
  connections.unsubscribe(listener)
  const told = messages.map(({ event, status }) => `${event} ${status}`)
  const OTHERS = /^(error|status down)/
  assert.deepEqual(
    told.filter((one) => !OTHERS.test(one)),
    ["ready ready", "reconnecting connecting", "status connecting", "ready ready", "end closed"],
  )
  assert.ok(told.includes("status down"))
  const errors = messages.filter(({ event }) => event === "error").map(({ error }) => error.code)
  assert.deepEqual([...new Set(errors)], ["ERR_REDIS_STORE_CONNECT"])
  await second.stop()
})

test("NODE_DEBUG prints connections and batches, and without it nothing is printed", async () => {
  const code = `const store = new RedisStore({ url: "${server.url}" })
    await Promise.all([store.get("a"), store.get("b")])
    await store.close()`
  const { errors } = await script(code, { NODE_DEBUG: "connect-redis-native" })
  const lines = errors.trim().split("\n")
  const said = lines.map((line) => /^CONNECT-REDIS-NATIVE \d+: (.*)$/.exec(line)?.[1])
  assert.deepEqual(said.toSorted(), ["a batch of 2", "end, the store is closed", "ready, the store is ready"])
  assert.equal((await script(code)).errors, "")
})

test("no secret reaches listeners, debug output, metrics and stats", async () => {
  const canaries = { password: "canary-password-5f0c", sid: "canary-sid-91ab", value: "canary-value-d3e7" }
  const gone = ["GET", "SET", "PEXPIRE", "DEL", "SCAN"].flatMap((name) => ["--rename-command", name, ""])
  const bare = await startServer({ args: gone })
  const { exitCode, printed, errors } = await script(
    `import { channel, tracingChannel } from "node:diagnostics_channel"
    import { inspect } from "node:util"
    import { createRequire } from "node:module"
    import { metrics } from "./examples/prometheus/metrics.mjs"
    const require = createRequire(import.meta.url)
    const { password, sid, value } = ${JSON.stringify(canaries)}
    const tell = (message) => console.log(inspect(message, { depth: Infinity, showHidden: true }))
    const names = ["start", "end", "asyncStart", "asyncEnd", "error"]
    tracingChannel("connect-redis-native:command").subscribe(Object.fromEntries(names.map((name) => [name, tell])))
    channel("connect-redis-native:connection").subscribe(tell)
    const session = { cookie: {}, value }
    // redis 3 searches NODE_DEBUG for its own name, finds it in ours, and prints every command.
    delete process.env.NODE_DEBUG
    const client = require("redis-3").createClient("${bare.url}")
    // A client of an unknown kind: the store calls its commands, whose errors contain arguments.
    const bound = ["get", "set", "pexpire", "del", "mget", "scan", "ping"].map((name) => [name, client[name].bind(client)])
    const options = [
      { url: "${server.url}" },
      { url: "${bare.url}" },
      { url: "${server.url}", username: "nobody", password },
      { client: Object.fromEntries(bound) },
    ]
    for (const one of options) {
      const store = new RedisStore({ prefix: "canaries:", commandTimeoutMs: 500, ...one })
      await Promise.allSettled([
        store.set(sid, session), store.get(sid), store.touch(sid, session), store.all(), store.destroy(sid), store.ping(),
      ])
      tell(store.stats())
      console.log(metrics(store))
      await store.close()
    }
    client.end(false)`,
    { NODE_DEBUG: "connect-redis-native" },
  )
  assert.equal(exitCode, 0, errors)
  const said = printed + errors
  for (const code of ["SERVER", "AUTH"]) assert.match(printed, new RegExp(`outcome: 'ERR_REDIS_STORE_${code}'`))
  for (const canary of Object.values(canaries)) {
    const at = said.indexOf(canary)
    assert.equal(at, -1, `${canary} was printed: ${said.slice(Math.max(0, at - 300), at)}`)
  }
  await bare.stop()
})

test("the OpenTelemetry example creates client spans, children of the active span, with the conventional attributes", async () => {
  const exporter = new InMemorySpanExporter()
  const manager = new AsyncLocalStorageContextManager().enable()
  context.setGlobalContextManager(manager)
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  const stop = traceRedisStore(provider.getTracer("test"))
  const full = await startServer({ args: ["--maxmemory", "1"] })
  const store = open({ url: full.url })
  const parent = provider.getTracer("test").startSpan("GET /")
  await context.with(trace.setSpan(context.active(), parent), async () => {
    await store.get("canary-sid")
    assert.equal(trace.getActiveSpan(), parent)
    await assert.rejects(store.set("canary-sid", { ...session, canary: true }))
  })
  await store.close()
  stop()
  await open().get("after")
  await provider.forceFlush()
  const spans = exporter.getFinishedSpans()
  assert.deepEqual(
    spans.map(({ name }) => name),
    ["GET 0", "SET 0"],
  )
  const common = {
    "db.system.name": "redis",
    "db.namespace": "0",
    "server.address": "127.0.0.1",
    "server.port": full.port,
  }
  assert.deepEqual(spans[0].attributes, { ...common, "db.operation.name": "GET" })
  assert.deepEqual(spans[1].attributes, {
    ...common,
    "db.operation.name": "SET",
    "error.type": "ERR_REDIS_STORE_SERVER",
  })
  assert.deepEqual(
    spans.map(({ status }) => status.code),
    [SpanStatusCode.UNSET, SpanStatusCode.ERROR],
  )
  for (const span of spans) {
    assert.equal(span.kind, SpanKind.CLIENT)
    assert.equal(span.parentSpanContext.spanId, parent.spanContext().spanId)
    assert.ok(!inspect([span.name, span.attributes, span.events, span.status]).includes("canary"))
  }
  context.disable()
  await provider.shutdown()
  await full.stop()
})

test("the Prometheus example writes the text format, with whole families and cumulative buckets", async () => {
  const store = open()
  await store.set("a", session)
  await Promise.all([store.get("a"), store.get("b")])
  const text = metrics(store)
  const samples = new Map()
  let family
  for (const line of text.trimEnd().split("\n")) {
    const [, name, type] = /^# TYPE (\w+) (counter|gauge|histogram)$/.exec(line) ?? []
    if (name) family = { name, type }
    if (line.startsWith("#")) continue
    const [, sample, labels = "", value] = /^(\w+)(\{(?:\w+="[^"\\]*",?)+\})? (\S+)$/.exec(line)
    const suffix = family.type === "histogram" ? /^_(bucket|sum|count)$/ : /^$/
    assert.ok(sample.startsWith(family.name) && suffix.test(sample.slice(family.name.length)), line)
    assert.equal(sample.endsWith("_total"), family.type === "counter", line)
    samples.set(sample + labels, Number(value))
  }
  assert.ok(text.endsWith("\n"))
  assert.equal(samples.get('redis_store_commands_total{command="get",outcome="ok"}'), 2)
  assert.equal(samples.get('redis_store_commands_total{command="set",outcome="ok"}'), 1)
  const buckets = [...samples].filter(([name]) => name.includes("_bucket")).map(([, value]) => value)
  assert.deepEqual(
    buckets,
    buckets.toSorted((a, b) => a - b),
  )
  assert.equal(samples.get('redis_store_command_duration_seconds_bucket{le="+Inf"}'), 3)
  assert.equal(samples.get("redis_store_command_duration_seconds_count"), 3)
  assert.ok(samples.get("redis_store_command_duration_seconds_sum") < 2)
})
