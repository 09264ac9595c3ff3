// Sessions of every kind. With LONG_FORM ten times as many, other ones in every run.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { test } from "node:test"

import * as fc from "fast-check"

import { RedisStore } from "../index.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const { markerOf } = createRequire(import.meta.url)("../lib/races/marker.js")
const LONG = Boolean(process.env.LONG_FORM)
const runs = (numRuns) => (LONG ? { numRuns: numRuns * 10 } : { numRuns, seed: 47 })

const server = ownServer()

/** Characters with a special meaning on the way: in globs, RESP, JSON, UTF-8 or C. */
const awkward = fc.constantFrom(..."*?[]^-\\{}:$\r\n\0\"'% ", "é", "ß", "漢", "😀", "\u2028", "\ufeff", "\x7f", "\x80")
const text = (size) =>
  fc.string({ unit: fc.oneof(awkward, fc.string({ unit: "binary", minLength: 1, maxLength: 1 })), ...size })
const sids = fc.uniqueArray(text({ minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 20 })
const prefixes = text({ minLength: 1, maxLength: 12 })
const key = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "prototype", "toJSON", "cookie", "", "then"),
  text({ maxLength: 6 }),
  fc.string({ unit: "binary", maxLength: 6 }),
)
const { value } = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.string({ unit: "binary" }),
    // Half of a pair alone: JSON escapes it.
    fc.constantFrom("\ud800", "x\udfffy"),
    fc.double(),
    fc.integer(),
    fc.constantFrom(true, false, null),
  ),
  value: fc.oneof(
    { depthSize: "medium" },
    tie("leaf"),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.array(fc.tuple(key, tie("value")), { maxLength: 5 }).map(ownProperties),
  ),
}))

/** An object with these properties as JSON.parse makes it: `__proto__` is one like any other. */
function ownProperties(entries) {
  const object = {}
  for (const [name, of] of entries) {
    Object.defineProperty(object, name, { value: of, enumerable: true, configurable: true, writable: true })
  }
  // What a session would say itself about how it is stored.
  if (typeof object.toJSON === "function") delete object.toJSON
  return object
}

test("what is set is what is got, under its own key and no other, and no prototype changes", async () => {
  const { client } = server
  await fc.assert(
    fc.asyncProperty(prefixes, sids, fc.array(value, { minLength: 20, maxLength: 20 }), async (prefix, ids, values) => {
      await client.flushAll()
      const points = [...prefix]
      // Keys that a prefix with a meaning to globs would match.
      const others = [
        "",
        "x",
        points.slice(1).join(""),
        `${points.slice(0, -1).join("")}~`,
        prefix.replaceAll(/[*?[\]\\]/g, "x"),
      ]
      const strangers = [...new Set(others)]
        .map((other) => `${other}stranger`)
        .filter((name) => !name.startsWith(prefix))
      for (const name of strangers) await client.set(name, "untouched")
      const store = new RedisStore({ url: server.url, prefix })
      const sessions = ids.map((_, at) => ({ cookie: { originalMaxAge: null }, value: values[at] }))
      await Promise.all(ids.map((sid, at) => store.set(sid, sessions[at])))
      const got = await Promise.all(ids.map((sid) => store.get(sid)))
      for (const [at, session] of sessions.entries()) {
        assert.equal(JSON.stringify(got[at]), JSON.stringify(session))
        assert.equal(await client.get(prefix + ids[at]), JSON.stringify(session))
      }
      assert.equal(await store.length(), ids.length)
      assert.deepEqual((await store.ids()).toSorted(), ids.toSorted())
      const all = await store.all()
      assert.deepEqual(all.map(({ id }) => id).toSorted(), ids.toSorted())
      await store.touch(ids[0], sessions[0])
      await store.destroy(ids[0])
      assert.equal(await store.get(ids[0]), null)
      const marker = markerOf(prefix, prefix + ids[0])
      assert.equal(await client.get(marker), "")
      assert.equal(await client.dbSize(), ids.length + strangers.length)
      await store.clear()
      const left = [...strangers, marker, markerOf(prefix, prefix)]
      assert.deepEqual((await client.keys("*")).toSorted(), left.toSorted())
      await store.close()
      assert.deepEqual(Object.keys(Object.prototype), [])
      assert.equal({}.polluted, undefined)
    }),
    runs(60),
  )
})

test("a session id with half of a surrogate pair alone is refused, and touches nothing", async () => {
  const prefix = ownPrefix()
  const store = new RedisStore({ url: server.url, prefix })
  const half = fc.integer({ min: 0xd800, max: 0xdfff }).map((unit) => String.fromCharCode(unit))
  await server.client.flushAll()
  await fc.assert(
    fc.asyncProperty(text({ maxLength: 5 }), half, async (around, alone) => {
      const [refused, whole] = await Promise.allSettled([
        store.set(`x${around}${alone}y`, { cookie: {} }),
        store.set(`x${around}`, { cookie: {} }),
      ])
      assert.equal(refused.reason.code, "ERR_REDIS_STORE_OPTIONS")
      assert.equal(whole.status, "fulfilled")
      await store.destroy(`x${around}`)
      const marker = markerOf(prefix, `${prefix}x${around}`)
      assert.deepEqual(await server.client.keys("*"), [marker])
      await server.client.del(marker)
    }),
    runs(50),
  )
  await store.close()
})

test("ids up to the limit, deep sessions and 8 MB are stored whole", async () => {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix() })
  let deep = "the bottom"
  for (let level = 0; level < 2000; level++) deep = level % 2 ? [deep] : { deep }
  const bytes = 8 * 1024 * 1024
  const filler = (unit) => unit.repeat((bytes - 1000) / Buffer.byteLength(unit))
  const sessions = [deep, filler("x"), filler("é"), filler("😀"), filler("漢")].map((of) => ({ cookie: {}, of }))
  for (const sid of ["s".repeat(4096), "漢".repeat(1365), "😀".repeat(1024)]) {
    for (const session of sessions) {
      await store.set(sid, session)
      assert.ok(JSON.stringify(await store.get(sid)) === JSON.stringify(session))
    }
    await store.destroy(sid)
    await assert.rejects(store.get(`${sid}ssss`), { code: "ERR_REDIS_STORE_OPTIONS" })
  }
  await store.close()
})

test("options of every kind open a store or are refused as options", async () => {
  const names = [
    ...[
      "url",
      "prefix",
      "ttl",
      "disableTTL",
      "disableTouch",
      "scanCount",
      "serializer",
      "client",
      "username",
      "password",
    ],
    ...["database", "clientName", "tls", "nodes", "sentinel", "credentials", "connectTimeoutMs", "commandTimeoutMs"],
    ...["maxPending", "maxPendingBytes", "maxSessionBytes", "emitConnectionEvents", "unknown", "__proto__"],
  ]
  const anything = fc.oneof(
    fc.anything(),
    fc.constantFrom(0, -1, 1.5, NaN, Infinity, 2 ** 53, "", "redis://", "rediss://[::1"),
    fc.func(fc.anything()),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.constantFrom(...names), anything), { maxLength: 3 }), async (entries) => {
      const canary = "canary-7c1f"
      const options = { url: server.url, password: undefined, ...Object.fromEntries(entries) }
      if (options.password !== undefined) options.password = canary
      let store
      try {
        store = new RedisStore(options)
      } catch (error) {
        assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS", error.stack)
        assert.ok(!error.message.includes(canary))
        return
      }
      await store.close()
    }),
    runs(500),
  )
})
