// The bugs of connect-redis 10 that this package does not have. Each test fails with connect-redis.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, describe, test } from "node:test"

import { RedisStore } from "../index.mjs"
import { called, until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const stores = []
after(() => Promise.all(stores.map((store) => store.close())))

function open(options) {
  const source = options?.client === undefined ? { url: server.url } : {}
  const store = new RedisStore({ ...source, prefix: ownPrefix(), ...options })
  stores.push(store)
  return store
}

const cookie = (expires) => ({ originalMaxAge: null, expires })

describe("glob characters in the prefix", () => {
  for (const special of ["app[1]:", "u*:", "q?:", "b\\:", "c]:", "é*:"]) {
    test(special, async () => {
      const prefix = ownPrefix()
      const store = open({ prefix: prefix + special })
      const foreign = [`${prefix}app1:x`, `${prefix}user:x`, `${prefix}qq:x`, `${prefix}b:x`, `${prefix}éé:x`]
      for (const key of foreign) await server.client.set(key, "foreign")
      await store.set("sid", { cookie: cookie() })
      assert.deepEqual(await store.ids(), ["sid"])
      assert.equal(await store.length(), 1)
      assert.equal((await store.all())[0].id, "sid")
      await store.clear()
      assert.equal(await store.length(), 0)
      assert.equal(await server.client.exists(foreign), foreign.length)
    })
  }
})

describe("the client's own key prefix", () => {
  const Redis = require("ioredis").default ?? require("ioredis")
  const CLIENTS = {
    ioredis: () => new Redis(server.url, { keyPrefix: "kp[0]:" }),
    "redis 6": () => require("redis").createClient({ url: server.url, keyPrefix: "kp[0]:" }).connect(),
    "redis 3": () => require("redis-3").createClient(server.url, { prefix: "kp[0]:" }),
  }
  for (const [name, make] of Object.entries(CLIENTS)) {
    test(name, async () => {
      const client = await make()
      const store = open({ client, prefix: ownPrefix() })
      const other = open({ prefix: store.prefix })
      await other.set("unprefixed", { cookie: cookie() })
      await store.set("sid", { cookie: cookie() })
      assert.equal(await server.client.exists(`kp[0]:${store.prefix}sid`), 1)
      assert.equal(await store.length(), 1)
      assert.deepEqual(await store.ids(), ["sid"])
      assert.equal((await store.all())[0].id, "sid")
      await store.clear()
      assert.equal(await store.length(), 0)
      assert.equal(await other.length(), 1)
      await (client.disconnect?.() ?? client.end(false))
    })
  }
})

test("an async serializer.parse is awaited in all()", async () => {
  const store = open({ serializer: { stringify: JSON.stringify, parse: async (text) => JSON.parse(text) } })
  await store.set("sid", { cookie: cookie(), n: 1 })
  assert.deepEqual(
    (await store.all()).map(({ id, n }) => [id, n]),
    [["sid", 1]],
  )
})

describe("an expiry that is none never destroys a stored session", () => {
  for (const expires of [
    "garbage",
    "garbage 1",
    "garbage 2038",
    "Mayday 2038",
    "1",
    new Date(Number.NaN),
    Number.NaN,
    {},
    [5],
    true,
    "NaN",
  ]) {
    test(`cookie.expires ${JSON.stringify(expires)} counts as none`, async () => {
      const store = open({ ttl: 77 })
      await store.set("sid", { cookie: cookie(), n: 1 })
      await store.set("sid", { cookie: cookie(expires), n: 2 })
      assert.equal((await store.get("sid")).n, 2)
      await store.touch("sid", { cookie: cookie(expires) })
      const left = await server.client.pTTL(`${store.prefix}sid`)
      assert.ok(left > 70_000 && left <= 77_000, `${left} ms`)
    })
  }
  for (const seconds of [Number.NaN, Infinity, undefined, "soon", null]) {
    test(`a ttl function that returns ${seconds} is an error`, async () => {
      const store = open()
      await store.set("sid", { cookie: cookie(), n: 1 })
      store.ttl = () => seconds
      for (const method of ["set", "touch"]) {
        const [error] = await called((done) => store[method]("sid", { cookie: cookie() }, done))
        assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
        assert.match(error.message, /Option "ttl" must return a finite number of seconds, got/)
      }
      assert.equal((await store.get("sid")).n, 1)
    })
  }
  test("1.5 seconds are 1500 milliseconds", async () => {
    const store = open({ ttl: 1.5 })
    await store.set("sid", { cookie: cookie() })
    const left = await server.client.pTTL(`${store.prefix}sid`)
    assert.ok(left > 1000 && left <= 1500, `${left} ms`)
  })
  test("an expiry beyond what Redis can count is as late as it can be", async () => {
    const store = open({ ttl: 1e300 })
    await store.set("sid", { cookie: cookie() })
    assert.ok((await server.client.pTTL(`${store.prefix}sid`)) > 1e15)
  })
})

test("a ttl function that throws reaches the callback and the promise", async () => {
  const thrown = new Error("no ttl today")
  const store = open({
    ttl: () => {
      throw thrown
    },
  })
  for (const method of ["set", "touch"]) {
    assert.equal((await called((done) => store[method]("sid", {}, done)))[0], thrown)
    await assert.rejects(store[method]("sid", {}), thrown)
  }
})

test("disableTTL never deletes", async () => {
  const store = open({ disableTTL: true })
  await store.set("sid", { cookie: cookie(new Date(0)), n: 1 })
  await store.touch("sid", { cookie: cookie(new Date(0)) })
  assert.equal((await store.get("sid")).n, 1)
})

test("all() leaves corrupt values out, with one warning that hides their ids, and gives the others", async () => {
  const store = open()
  const warnings = []
  const listen = (warning) => warnings.push(warning)
  process.on("warning", listen)
  await store.set("good", { cookie: cookie(), n: 1 })
  await store.set("own", { cookie: cookie(), id: "its own" })
  const corrupt = { "corrupt-1": "{secret", "corrupt-2": "null", "corrupt-3": "42", "corrupt-4": '"text"' }
  for (const [sid, value] of Object.entries(corrupt)) await server.client.set(store.prefix + sid, value)
  const all = await store.all()
  assert.deepEqual(all.map(({ id }) => id).toSorted(), ["good", "its own"])
  await until("the warning", () => warnings.length > 0)
  process.off("warning", listen)
  assert.equal(warnings.length, 1)
  const [warning] = warnings
  assert.equal(warning.code, "CONNECT_REDIS_NATIVE_CORRUPT_SESSION")
  assert.match(warning.message, /skips 4 sessions, .*session [0-9a-f]{8} \(hash of its id\)/)
  assert.doesNotMatch(warning.message, /corrupt-|secret/)
  assert.equal(await store.length(), 6)
})

test("every shape of a date that sessions hold is one", async () => {
  const store = open({ ttl: 5000 })
  const at = new Date(Date.now() + 60_000)
  for (const expires of [
    at,
    at.getTime(),
    at.toISOString(),
    at.toUTCString(),
    at.toString(),
    { valueOf: () => at.getTime() },
  ]) {
    await store.set("sid", { cookie: { expires } })
    const left = await server.client.pTTL(`${store.prefix}sid`)
    assert.ok(left > 50_000 && left <= 60_000, `${expires}: ${left} ms`)
  }
})

for (const [expires, isPast] of Object.entries({
  "+275760-09-13T00:00:00.000Z": false,
  2099: false,
  "2099-01": false,
  "2099/01/01": false,
  "January 1, 2099": false,
  "1 Jan 2099": false,
  "Thursday, 01-Jan-2099 00:00:00 GMT": false,
  "1/1/2099, 10:00:00 PM": false,
  "2001/01/01": true,
  "-000001-01-01T00:00:00.000Z": true,
})) {
  test(`cookie.expires ${expires} is a date`, async () => {
    const store = open({ ttl: 50 })
    await store.set("sid", { cookie: { expires } })
    const left = await server.client.pTTL(`${store.prefix}sid`)
    if (isPast) assert.equal(left, -2)
    else assert.ok(Math.abs(left - (Date.parse(expires) - Date.now())) < 60_000, `${left} ms`)
  })
}

test("a ttl function may return a number as text, a bigint or a Number", async () => {
  for (const value of ["100", "1e2", 100n, new Number(100)]) {
    const store = open({ ttl: () => value })
    await store.set("sid", { cookie: {} })
    const left = await server.client.pTTL(`${store.prefix}sid`)
    assert.ok(left > 90_000 && left <= 100_000, `${left} ms`)
    assert.equal(await store.touch("sid", { cookie: {} }), null)
  }
})

test("clear() removes at most 1000 keys a command, whatever scanCount is", async () => {
  const store = open({ scanCount: 1_000_000 })
  const ids = Array.from({ length: 5000 }, (_, n) => `s${n}`)
  await Promise.all(ids.map((sid) => store.set(sid, { cookie: cookie() })))
  await server.client.configResetStat()
  await store.clear()
  const calls = /cmdstat_unlink:calls=(\d+)/.exec(await server.client.info("commandstats"))[1]
  assert.ok(Number(calls) >= 5, `${calls} UNLINKs`)
  assert.equal(await store.length(), 0)
})

test("clear() and all() take many small commands", async () => {
  const store = open()
  const ids = Array.from({ length: 5000 }, (_, n) => `s${n}`)
  await Promise.all(ids.map((sid) => store.set(sid, { cookie: cookie() })))
  await server.client.configResetStat()
  const all = await store.all()
  await store.clear()
  const stats = await server.client.info("commandstats")
  const calls = (command) => Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0)
  assert.equal(all.length, 5000)
  assert.ok(calls("mget") >= 10, `${calls("mget")} MGETs`)
  assert.ok(calls("unlink") >= 3, `${calls("unlink")} UNLINKs`)
  assert.equal(calls("del"), 0)
})

describe("ids() parses many in several turns of the event loop", () => {
  const unknown = CLIENTS.find(({ name }) => name === "an unknown client that returns promises")
  const STORES = { native: undefined, delegating: unknown }
  for (const [name, kind] of Object.entries(STORES)) {
    test(name, async (t) => {
      const client = await kind?.open(server.url)
      t.after(() => kind?.close(client))
      const store = open({ client, maxPending: 25_000, commandTimeoutMs: 30_000 })
      assert.equal(store.native, kind === undefined)
      const ids = Array.from({ length: 25_000 }, (_, n) => `s${n}`)
      await Promise.all(ids.map((sid) => store.set(sid, { cookie: cookie() })))
      let turn = 0
      let counting = setImmediate(function count() {
        turn++
        counting = setImmediate(count)
      })
      const { parse } = JSON
      const turns = new Set()
      t.mock.method(JSON, "parse", (text) => {
        turns.add(turn)
        return parse(text)
      })
      const found = await store.ids()
      clearImmediate(counting)
      assert.deepEqual(found.toSorted(), ids.toSorted())
      assert.equal(turns.size, 3)
    })
  }
})

test("a fraction of a second is kept", async () => {
  const store = open()
  await store.set("sid", { cookie: cookie(new Date(Date.now() + 300)) })
  assert.ok((await server.client.pTTL(`${store.prefix}sid`)) <= 300)
})
