// What sealed sessions take of memory and time, and what is refused before it does harm.
import assert from "node:assert/strict"
import { createSecretKey } from "node:crypto"
import { describe, test } from "node:test"
import vm from "node:vm"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { KEYS, handleOf, key } from "./support/sealed.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })
const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
const encrypted = (keys, plaintext) => ({ encryption: { keys, plaintext } })
const [NEW, OLD] = KEYS

async function load(store, sid = "a") {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

/** A client that a store delegates to, with these methods of node-redis only. */
function wrapped(names) {
  return Object.fromEntries(names.map((name) => [name, (...args) => server.client[name](...args)]))
}
const BASIC = ["get", "set", "del", "expire", "mGet", "scanIterator"]

describe("what was compressed", () => {
  test("is expanded to no more than maxSessionBytes, by every store and in every way of reading", async () => {
    const prefix = ownPrefix()
    const writer = open({ prefix, compression: { minBytes: 1 } })
    const small = { cookie: cookie(), text: "a".repeat(20_000) }
    await writer.set("small", small)
    await writer.set("large", { ...small, text: "a".repeat(200_000) })
    const sealing = open({ prefix, compression: { minBytes: 1 }, ...encrypted(KEYS) })
    await sealing.set("sealed", { ...small, text: "a".repeat(200_000) })
    const decode = { code: "ERR_REDIS_STORE_DECODE", message: /maxSessionBytes/ }
    for (const options of [
      {},
      { onConflict: "merge" },
      { compression: { minBytes: 1 } },
      encrypted(KEYS),
      { client: wrapped(BASIC), url: undefined },
    ]) {
      const reader = open({ prefix, maxSessionBytes: 100_000, ...options })
      assert.equal((await reader.get("small")).text.length, 20_000)
      await assert.rejects(reader.get("large"), decode)
      if (options.encryption) await assert.rejects(reader.get("sealed"), decode)
      assert.deepEqual(
        (await reader.all()).map(({ id }) => id),
        ["small"],
      )
    }
  })

  test("is merged within that limit too", async () => {
    const prefix = ownPrefix()
    const writer = open({ prefix, compression: { minBytes: 1 } })
    const store = open({ prefix, onConflict: "merge", maxSessionBytes: 100_000 })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    loaded.n = 1
    await writer.set("a", { cookie: cookie(), text: "a".repeat(200_000) })
    await assert.rejects(store.set("a", loaded), { code: "ERR_REDIS_STORE_DECODE", message: /maxSessionBytes/ })
    await writer.set("a", { cookie: cookie(), text: "a".repeat(20_000) })
    const again = await load(store)
    again.n = 1
    await writer.set("a", { cookie: cookie(), text: "a".repeat(20_000), m: 2 })
    await store.set("a", again)
    const { n, m } = await store.get("a")
    assert.deepEqual([n, m], [1, 2])
  })

  test("counts in all() as long as it is: other work comes in between", async () => {
    const prefix = ownPrefix()
    const writer = open({ prefix, compression: { minBytes: 1 } })
    const large = { cookie: cookie(), text: "a".repeat(6 * 2 ** 20) }
    await Promise.all(Array.from({ length: 12 }, (_, n) => writer.set(`s${n}`, large)))
    let parsed = 0
    const seen = new Set()
    let reading = true
    const look = () => {
      seen.add(parsed)
      if (reading) setImmediate(look)
    }
    const serializer = { stringify: JSON.stringify, parse: (text) => ((parsed += 1), JSON.parse(text)) }
    const reader = open({ prefix, serializer })
    look()
    assert.equal((await reader.all()).length, 12)
    reading = false
    for (const between of [2, 4, 6, 8, 10]) assert.ok(seen.has(between), `${[...seen]}`)
  })
})

describe("keys", () => {
  test("are bytes of any realm, an ArrayBuffer, a KeyObject, or base64 with white space around it", async () => {
    const bytes = Buffer.alloc(32, 7)
    const prefix = ownPrefix()
    await open({ prefix, ...encrypted([key("a", 7)]) }).set("a", { cookie: cookie(), n: 1 })
    for (const given of [
      vm.runInNewContext("new Uint8Array(32).fill(7)"),
      vm.runInNewContext("new Uint8Array(32).fill(7).buffer"),
      new Uint8Array(bytes).buffer,
      createSecretKey(bytes),
      `${bytes.toString("base64")}\n`,
      `  ${bytes.toString("base64url")}\r\n`,
    ]) {
      const store = open({ prefix, ...encrypted([{ id: "a", key: given }], "reject") })
      assert.equal((await store.get("a")).n, 1)
    }
    for (const given of [createSecretKey(Buffer.alloc(16)), new ArrayBuffer(31), "\n", new Uint16Array(16)]) {
      assert.throws(() => open(encrypted([{ id: "a", key: given }])), { code: "ERR_REDIS_STORE_OPTIONS" })
    }
    assert.throws(() => open({ encryption: vm.runInNewContext("new Uint8Array(32)") }), {
      code: "ERR_REDIS_STORE_OPTIONS",
    })
  })

  test("a member that options do not have is refused", () => {
    for (const [options, named] of [
      [{ encryption: { keys: KEYS, plainText: "reject" } }, /"keys" and "plaintext", got "plainText"/],
      [{ encryption: { keys: KEYS, plaintext: "reject", key: 1 } }, /got "key"/],
      [{ compression: { minBytes: 1, min: 2 } }, /"minBytes", got "min"/],
    ]) {
      assert.throws(() => open(options), { code: "ERR_REDIS_STORE_OPTIONS", message: named })
    }
  })
})

describe("requests that wait for keys", () => {
  const never = () => new Promise(() => {})

  test("are bounded in bytes, and those that have ended count no more", async () => {
    let keys = never
    const store = open({ ...encrypted(() => keys()), commandTimeoutMs: 200, maxPendingBytes: 10_000 })
    const session = { cookie: cookie(), text: "a".repeat(4000) }
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, (_, n) => store.set(`s${n}`, session)))
    assert.deepEqual(
      outcomes.map(({ reason }) => reason.code),
      [...Array(2).fill("ERR_REDIS_STORE_TIMEOUT"), ...Array(3).fill("ERR_REDIS_STORE_QUEUE_FULL")],
    )
    assert.match(outcomes[4].reason.message, /maxPendingBytes/)
    keys = () => KEYS
    await until("the keys", () =>
      store.set("b", session).then(
        () => true,
        () => false,
      ),
    )
    assert.notEqual(await store.get("b"), null)
  })

  test("destroy, touch and clear need none, and come after what waits for the same session", async () => {
    const prefix = ownPrefix()
    const plain = open({ prefix })
    for (const sid of ["a", "b", "c"]) await plain.set(sid, { cookie: cookie() })
    for (const hashIds of [false, "migrate"]) {
      const store = open({ prefix, hashIds, ...encrypted(never), commandTimeoutMs: 1000 })
      await store.destroy(hashIds ? "b" : "a")
      assert.equal(await server.client.exists(prefix + (hashIds ? "b" : "a")), 0)
    }
    let give
    const store = open({ prefix, ...encrypted(() => new Promise((resolve) => (give = () => resolve(KEYS)))) })
    await server.client.pExpire(`${prefix}c`, 1000)
    await store.touch("c", { cookie: cookie() })
    assert.ok((await server.client.pTTL(`${prefix}c`)) > 1000)
    await store.clear()
    assert.equal(await store.length(), 0)
    const order = []
    const note = (name) => (value) => order.push([name, value === null])
    const answers = [
      store.set("a", { cookie: cookie() }).then(note("set")),
      store.destroy("a").then(note("destroy")),
      store.get("a").then(note("get")),
    ]
    await store.destroy("other")
    answers.push(store.clear().then(note("clear")))
    assert.deepEqual(order, [])
    await until("the question", () => give)
    give()
    await Promise.all(answers)
    assert.deepEqual(order.toSorted(), [
      ["clear", true],
      ["destroy", true],
      ["get", true],
      ["set", true],
    ])
    assert.equal(await store.get("a"), null)
  })
})

describe("reseal", () => {
  test("goes on behind what does not open, and behind keys of another type", async () => {
    for (const hashIds of [false, true, "migrate"]) {
      const prefix = ownPrefix()
      await server.client.set(`${prefix}alien`, "~1s.gone.AAAA")
      await server.client.set(`${prefix}${handleOf("elsewhere")}`, "~1s.gone.AAAA")
      await server.client.hSet(`${prefix}hash`, "a", "b")
      await server.client.hSet(`${prefix}${handleOf("another")}`, "a", "b")
      for (const sid of ["a", "b"]) await open({ prefix }).set(sid, { cookie: cookie(), sid })
      const store = open({ prefix, hashIds, ...encrypted([NEW]) })
      const { total, failed, resealed } = await store.reseal()
      assert.deepEqual({ total, failed, resealed }, { total: 6, failed: 2, resealed: 2 }, `${hashIds}`)
      assert.match(await server.client.get(prefix + (hashIds === "migrate" ? handleOf("b") : "b")), /^~1s\.new\./)
    }
  })

  test("rejects where the server refuses it", async () => {
    const store = open({ hashIds: "migrate", commandTimeoutMs: 500 })
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie() }))
    await server.client.configSet("maxmemory", "1")
    try {
      await assert.rejects(store.reseal(), { code: "ERR_REDIS_STORE_SERVER" })
    } finally {
      await server.client.configSet("maxmemory", "0")
    }
    assert.equal((await store.reseal()).resealed, 1)
  })

  test("writes what is stored in any other way as the options say now, and nothing else", async () => {
    const compression = { minBytes: 10 }
    const ways = {
      plain: [{}, "{"],
      compressed: [{ compression }, "~1z."],
      encrypted: [encrypted(KEYS), "~1s.new."],
      both: [{ compression, ...encrypted(KEYS) }, "~1sz.new."],
      leaving: [encrypted(KEYS, "write"), "{"],
    }
    for (const [to, [options, kind]] of Object.entries(ways)) {
      for (const [from, [before]] of Object.entries(ways)) {
        if (["encrypted", "both"].includes(from) && options.encryption === undefined) continue
        const prefix = ownPrefix()
        await open({ prefix, ...before }).set("a", { cookie: cookie(), text: "a".repeat(500) })
        const store = open({ prefix, ...options })
        const had = await server.client.get(`${prefix}a`)
        const { resealed, failed } = await store.reseal()
        assert.deepEqual([resealed, failed], [had.startsWith(kind) ? 0 : 1, 0], `${from} to ${to}`)
        assert.ok((await server.client.get(`${prefix}a`)).startsWith(kind))
        assert.equal((await store.get("a")).text.length, 500)
        await server.client.set(`${prefix}a`, `~1m.${had}`)
        assert.equal((await store.reseal()).resealed, 1, `${from} to ${to}, moving`)
        assert.ok((await server.client.get(`${prefix}a`)).startsWith(kind))
      }
    }
  })

  test("counts a value that has the right key id and does not open", async () => {
    const prefix = ownPrefix()
    await open({ prefix, ...encrypted([NEW]) }).set("a", { cookie: cookie() })
    const { failed, resealed } = await open({ prefix, ...encrypted([key("new", 9)]) }).reseal()
    assert.deepEqual([failed, resealed], [1, 0])
  })
})

test("a session that does not open is not written over where its lifetime would start again", async () => {
  const prefix = ownPrefix()
  await open({ prefix, maxLifetime: 1000, ...encrypted([OLD]) }).set("a", { cookie: cookie(), n: 1 })
  const store = open({ prefix, maxLifetime: 1000, ...encrypted([NEW]) })
  await assert.rejects(store.set("a", { cookie: cookie(), n: 2 }), { code: "ERR_REDIS_STORE_DECODE" })
  assert.match(await server.client.get(`${prefix}a`), /^~1s\.old\./)
})

test("a lone surrogate is no id, with and without hashes", async () => {
  for (const hashIds of [false, true, "migrate", "prepare"]) {
    const store = open({ hashIds })
    for (const sid of ["\ud800", "a\udfff"]) {
      for (const ask of [() => store.set(sid, { cookie: cookie() }), () => store.get(sid), () => store.destroy(sid)]) {
        await assert.rejects(ask, { code: "ERR_REDIS_STORE_OPTIONS", message: /lone surrogate/ })
      }
    }
    await store.set("\ufffd", { cookie: cookie() })
    assert.equal(await store.length(), 1)
  }
})

test("a client without pTTL cannot move sessions to hashed keys", async () => {
  for (const hashIds of ["migrate", "prepare"]) {
    const client = wrapped(BASIC)
    assert.throws(() => new RedisStore({ client, hashIds }), {
      code: "ERR_REDIS_STORE_OPTIONS",
      message: new RegExp(`"hashIds" as "${hashIds}".*pttl`),
    })
    const able = wrapped([...BASIC, "pTTL"])
    assert.equal(await new RedisStore({ client: able, prefix: ownPrefix(), hashIds }).get("none"), null)
  }
})

test("a connection that stores share keeps the keys of none that is gone", async (t) => {
  const { setFlagsFromString } = await import("node:v8")
  setFlagsFromString("--expose-gc")
  const collect = vm.runInNewContext("gc")
  const client = await createClient({ url: server.url }).connect()
  t.after(() => client.close())
  const { binding } = (await import("../lib/native/protocol.js")).default.loadProtocol()
  const { addSealing } = binding.RedisStore.prototype
  const numbers = []
  binding.RedisStore.prototype.addSealing = function (...args) {
    numbers.push(addSealing.apply(this, args))
    return numbers.at(-1)
  }
  t.after(() => (binding.RedisStore.prototype.addSealing = addSealing))
  const prefix = ownPrefix()
  const stays = new RedisStore({ client, prefix, ...encrypted(KEYS) })
  await stays.set("a", { cookie: cookie(), n: 1 })
  await until("a place that is used again", async () => {
    const store = new RedisStore({ client, prefix, ...encrypted(KEYS) })
    assert.equal((await store.get("a")).n, 1)
    await store.close()
    collect()
    await new Promise((resolve) => setImmediate(resolve))
    return numbers.length > new Set(numbers).size
  })
  assert.equal((await stays.get("a")).n, 1)
  await stays.close()
})
