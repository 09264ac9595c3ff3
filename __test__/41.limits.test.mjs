import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { called, until } from "../testing/until.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const server = ownServer()
const session = { cookie: { originalMaxAge: null }, secret: "the-session-value" }
const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
const isDone = (promise) =>
  promise.then(
    () => true,
    () => false,
  )
const code = (name) => ({ code: `ERR_REDIS_STORE_${name}` })

describe("a frozen server", () => {
  test("fails every request once with TIMEOUT, and is used again when it continues", async () => {
    const frozen = await startServer()
    const store = new RedisStore({ url: frozen.url, commandTimeoutMs: 150 })
    await until("a connection", () => isDone(store.set("sid", session)))
    process.kill(frozen.pid, "SIGSTOP")
    const errors = []
    await Promise.all(
      Array.from({ length: 64 }, (_, n) =>
        called((done) => store.get(`s${n}`, done)).then(([error]) => errors.push(error.code)),
      ),
    )
    assert.equal(errors.length, 64)
    assert.deepEqual(new Set(errors), new Set(["ERR_REDIS_STORE_TIMEOUT"]))
    await assert.rejects(store.get("sid"), /RedisStoreError/)
    process.kill(frozen.pid, "SIGCONT")
    let found
    while (found === undefined) found = await store.get("sid").catch(() => undefined)
    assert.deepEqual(found, session)
    await store.close()
    await frozen.stop()
  })

  test("applies unread requests in their order, or not at all", async () => {
    const frozen = await startServer()
    const store = new RedisStore({ url: frozen.url, commandTimeoutMs: 150, prefix: "" })
    await until("a connection", () => isDone(store.set("sid", { cookie: {}, n: 0 })))
    process.kill(frozen.pid, "SIGSTOP")
    const old = Array.from({ length: 8 }, (_, n) => store.set("sid", { cookie: {}, n: n + 1 }).catch(() => {}))
    await Promise.all(old)
    const last = store.set("sid", { cookie: {}, n: 100 })
    process.kill(frozen.pid, "SIGCONT")
    const killed = async () => {
      const looker = await createClient({ url: frozen.url }).connect()
      const stats = await looker.info("commandstats")
      looker.destroy()
      return /cmdstat_client\|kill:calls=[1-9]|cmdstat_client:calls=/.test(stats)
    }
    const acknowledged = await last.then(
      () => true,
      () => false,
    )
    for (let i = 0; i < 20; i++) {
      const { n } = await store.get("sid").catch(() => ({ n: 100 }))
      if (acknowledged) assert.equal(n, 100)
    }
    // The old connection may hold older commands, so it is killed first.
    await until("the old connection to be killed", killed)
    await store.close()
    await frozen.stop()
  })
})

test("one pending request more than maxPending fails at once, and the others do not", async () => {
  const store = open({ maxPending: 10 })
  await store.set("sid", session)
  const results = await Promise.allSettled(Array.from({ length: 15 }, () => store.get("sid")))
  const refusals = results.filter(({ status }) => status === "rejected").map(({ reason }) => reason)
  assert.equal(refusals.length, 5)
  assert.ok(refusals.every((error) => error.code === "ERR_REDIS_STORE_QUEUE_FULL"))
  assert.match(refusals[0].message, /10 requests are pending already \(option "maxPending"\)/)
  assert.deepEqual(await store.get("sid"), session)
  await store.close()
})

describe("an invalid session id is refused, and the store continues", () => {
  const WRONG = [
    [undefined, /must be a string, got a undefined/],
    [null, /got null/],
    [Symbol("s"), /got a symbol/],
    [{}, /got a object/],
    ["x".repeat(4097), /at most 4096 bytes, got 4097 bytes/],
    ["é".repeat(2049), /got 4098 bytes/],
    ["\ud800", /well-formed Unicode/],
  ]
  for (const [sid, pattern] of WRONG) {
    test(JSON.stringify(sid)?.slice(0, 20) ?? String(sid), async () => {
      const store = open()
      for (const method of ["get", "set", "touch", "destroy"]) {
        const args = method === "get" || method === "destroy" ? [sid] : [sid, session]
        const [error] = await called((done) => store[method](...args, done))
        assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
        assert.match(error.message, pattern)
        await assert.rejects(store[method](...args), code("OPTIONS"))
      }
      assert.equal(await store.length(), 0)
      await store.close()
    })
  }
  test("an id of 4096 bytes is accepted", async () => {
    const store = open()
    for (const sid of ["x".repeat(4096), "é".repeat(2048), "", "\0", "a b\r\nc", "🦀"]) {
      await store.set(sid, { ...session, sid })
      assert.equal((await store.get(sid)).sid, sid)
    }
    await store.clear()
    await store.close()
  })
})

describe("a session that cannot be stored or read is an error, and nothing is lost", () => {
  const circular = {}
  circular.self = circular
  const STRINGIFY = {
    "a circular session": circular,
    undefined: undefined,
    "a BigInt": { n: 1n },
    "a function": () => {},
  }
  for (const [name, value] of Object.entries(STRINGIFY)) {
    test(`set of ${name}`, async () => {
      const store = open()
      await store.set("sid", session)
      await assert.rejects(store.set("sid", value), code("ENCODE"))
      assert.deepEqual(await store.get("sid"), session)
      await store.close()
    })
  }
  for (const value of ["{not json", "42", '"text"', "true", "\u0000"]) {
    test(`get of ${JSON.stringify(value)}`, async () => {
      const store = open()
      await server.client.set(`${store.prefix}the-session-id`, value)
      const [error, found] = await called((done) => store.get("the-session-id", done))
      assert.equal(error.code, "ERR_REDIS_STORE_DECODE")
      assert.equal(found, null)
      assert.match(error.message, /session [0-9a-f]{8} \(hash of its id\)/)
      assert.doesNotMatch(`${error.stack} ${error.cause}`, /the-session-id|not json/)
      assert.equal(await server.client.get(`${store.prefix}the-session-id`), value)
      await store.close()
    })
  }
  test("an async parse that rejects", async () => {
    const why = new Error("no key for this")
    const store = open({ serializer: { stringify: JSON.stringify, parse: () => Promise.reject(why) } })
    await store.set("sid", session)
    const [error] = await called((done) => store.get("sid", done))
    assert.deepEqual([error.code, error.cause], ["ERR_REDIS_STORE_DECODE", why])
    await store.close()
  })
  test("an empty value is a miss, as in connect-redis", async () => {
    const store = open()
    await server.client.set(`${store.prefix}sid`, "")
    assert.equal(await store.get("sid"), null)
    await store.close()
  })
  test("bytes that are not UTF-8 are replaced without an error", async () => {
    const store = open()
    await server.client.set(`${store.prefix}sid`, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))
    assert.deepEqual(await store.get("sid"), { "\ufffd": 1 })
    await store.close()
  })
  test("a session of 8 MB comes back", async () => {
    const store = open()
    const large = { cookie: {}, text: "0123456789abcdé\u2028".repeat(430_000) }
    await store.set("sid", large)
    assert.deepEqual(await store.get("sid"), large)
    await store.close()
  })
})

test("a session over maxSessionBytes is an error, and the stored session is unchanged", async () => {
  const store = open({ maxSessionBytes: 100 })
  await store.set("sid", { v: "before" })
  // 20 characters of 3 bytes, and 40 of JSON.
  await assert.rejects(store.set("sid", { v: "\u2028".repeat(31) }), {
    code: "ERR_REDIS_STORE_ENCODE",
    message: /at most 100 bytes \(option "maxSessionBytes"\), got 101;/,
  })
  assert.deepEqual(await store.get("sid"), { v: "before" })
  assert.equal(await store.set("sid", { v: "x".repeat(92) }), null)
  await store.close()
})

test("a request above maxPendingBytes is refused, and accepted once there is room", async () => {
  const store = open({ maxPendingBytes: 10_000 })
  const large = { v: "x".repeat(4000) }
  const answers = await Promise.allSettled(["a", "b", "c", "d"].map((sid) => store.set(sid, large)))
  assert.deepEqual(
    answers.map(({ status, reason }) => reason?.code ?? status),
    ["fulfilled", "fulfilled", "ERR_REDIS_STORE_QUEUE_FULL", "ERR_REDIS_STORE_QUEUE_FULL"],
  )
  for (const sid of ["c", "d"]) assert.equal(await store.set(sid, large), null)
  await store.close()
})

test("a callback that is not a function throws", () => {
  const store = open()
  assert.throws(() => store.get("sid", "callback"), code("OPTIONS"))
})

describe("close", () => {
  test("answers pending requests, then closes the connection", async () => {
    const store = open()
    const pending = Array.from({ length: 100 }, (_, n) => store.set(`s${n}`, session))
    const closed = store.close()
    assert.deepEqual(new Set(await Promise.all(pending)), new Set([null]))
    assert.equal(await closed, null)
    assert.equal(await server.client.exists(`${store.prefix}s99`), 1)
  })

  test("may be called twice, by promise and by callback; a later request fails", async () => {
    const store = open()
    await store.get("sid")
    assert.equal(await store.close(), null)
    assert.equal(await store.close(), null)
    assert.deepEqual(await called((done) => store.close(done)), [null, null])
    for (const method of ["get", "set", "touch", "destroy"]) {
      await assert.rejects(
        store[method](...(method === "get" || method === "destroy" ? ["sid"] : ["sid", session])),
        code("CLOSED"),
      )
    }
    for (const method of ["length", "ids", "all", "clear"]) await assert.rejects(store[method](), code("CLOSED"))
  })

  test("of a store that was never used", async () => {
    assert.equal(await open().close(), null)
  })

  test("of a store with a frozen Redis, after its requests have failed", async () => {
    const frozen = await startServer()
    const store = new RedisStore({ url: frozen.url, commandTimeoutMs: 300 })
    await until("a connection", () => isDone(store.get("sid")))
    process.kill(frozen.pid, "SIGSTOP")
    await assert.rejects(store.get("sid"), code("TIMEOUT"))
    assert.equal(await store.close(), null)
    await frozen.stop()
  })

  test("of a store without a running Redis", async () => {
    const store = open({ url: "redis://127.0.0.1:1", commandTimeoutMs: 200 })
    const pending = called((done) => store.get("sid", done))
    assert.equal(await store.close(), null)
    assert.equal((await pending)[0].code, "ERR_REDIS_STORE_CONNECT")
  })
})

test("answers that arrived while the event loop was busy count, however late they are read", async () => {
  const commandTimeoutMs = 300
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), commandTimeoutMs })
  const errors = []
  store.on("error", (error) => errors.push(error))
  await store.set("a", { cookie: {}, text: "x".repeat(8000) })
  const all = Promise.allSettled(Array.from({ length: 64 }, () => store.get("a")))
  // They are sent in the check phase of this turn.
  await new Promise((resolve) => setImmediate(resolve))
  for (const end = performance.now() + 3 * commandTimeoutMs; performance.now() < end;);
  assert.deepEqual(
    (await all).filter(({ status }) => status === "rejected"),
    [],
  )
  assert.deepEqual(errors, [])
  await store.close()
})
