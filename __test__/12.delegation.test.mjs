// Without the native binary: the same semantics through the client's own commands.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import { called } from "../testing/until.mjs"
import { COMMON_CLIENTS } from "./support/clients.mjs"
import { RedisStore, delegatedContract, missing } from "./support/delegated.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const warnings = []
process.on("warning", (warning) => warnings.push(warning))

const server = ownServer()
const session = { cookie: { originalMaxAge: null } }

delegatedContract(server, COMMON_CLIENTS)

describe("without the native binary", () => {
  test("a store with a client warns once", async () => {
    const client = require("redis").createClient({ url: server.url })
    const stores = [new RedisStore({ client }), new RedisStore({ client })]
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(stores.length, 2)
    const found = warnings.filter(({ code }) => code === "CONNECT_REDIS_NATIVE_FALLBACK")
    assert.equal(found.length, 1)
    assert.match(found[0].message, /^no binary here\. Until then, stores use the commands/)
  })

  test("a store with a url throws what to do", () => {
    assert.throws(
      () => new RedisStore({ url: server.url }),
      (error) => error === missing,
    )
  })
})

describe("a delegate", () => {
  const slow = { get() {}, set() {}, expire() {}, del() {}, scan() {}, mget() {} }

  test("answers within the deadline for a client that does not", async () => {
    const store = new RedisStore({ client: slow, commandTimeoutMs: 50 })
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_TIMEOUT" })
    await assert.rejects(store.length(), { code: "ERR_REDIS_STORE_TIMEOUT" })
  })

  test("refuses more than maxPending", async () => {
    const store = new RedisStore({ client: slow, commandTimeoutMs: 50, maxPending: 2 })
    const results = await Promise.allSettled([store.get("a"), store.get("b"), store.get("c")])
    assert.deepEqual(
      results.map(({ reason }) => reason.code),
      ["ERR_REDIS_STORE_TIMEOUT", "ERR_REDIS_STORE_TIMEOUT", "ERR_REDIS_STORE_QUEUE_FULL"],
    )
  })

  test("goes on with a key whose request was refused, where it keeps the order itself", async () => {
    const client = {
      ...slow,
      baseUrl: "http://stub",
      pexpire() {},
      get: () => new Promise((r) => setImmediate(r, "{}")),
    }
    const store = new RedisStore({ client, maxPending: 1, commandTimeoutMs: 5000 })
    const [first, second] = await Promise.allSettled([store.get("sid"), store.get("sid")])
    assert.deepEqual([first.status, second.reason.code], ["fulfilled", "ERR_REDIS_STORE_QUEUE_FULL"])
    assert.deepEqual(await store.get("sid"), {})
  })

  test("wraps what the client throws, rejects with or calls back with", async () => {
    const why = new Error("mine")
    const FAILING = [
      () => {
        throw why
      },
      () => Promise.reject(why),
      (...args) => args.at(-1)(why),
    ]
    for (const get of FAILING) {
      const store = new RedisStore({ client: { ...slow, get } })
      const [error] = await called((done) => store.get("sid", done))
      assert.deepEqual([error.code, error.cause], ["ERR_REDIS_STORE_SERVER", why])
    }
  })

  test("makes a reply that it cannot read an error of that request", async () => {
    const store = new RedisStore({ client: { ...slow, scan: async () => ["0", ["sess:a"]], mget: async () => 5 } })
    await assert.rejects(store.all(), { code: "ERR_REDIS_STORE_SERVER" })
  })

  test("is closed by close()", async () => {
    const store = new RedisStore({ client: slow })
    await store.close()
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_CLOSED" })
  })

  const Redis = require("ioredis").default ?? require("ioredis")
  const PREFIXED = {
    ioredis: () => new Redis(server.url, { keyPrefix: "kp[0]:" }),
    "redis 6": () => require("redis").createClient({ url: server.url, keyPrefix: "kp[0]:" }).connect(),
    "redis 3": () => require("redis-3").createClient(server.url, { prefix: "kp[0]:" }),
  }
  for (const [name, make] of Object.entries(PREFIXED)) {
    test(`minds the key prefix of ${name}`, async () => {
      const client = await make()
      const prefix = ownPrefix()
      const store = new RedisStore({ client, prefix })
      await server.client.set(`${prefix}foreign`, "1")
      await store.set("sid", session)
      assert.equal(await server.client.exists(`kp[0]:${prefix}sid`), 1)
      assert.deepEqual(await store.ids(), ["sid"])
      assert.equal((await store.all())[0].id, "sid")
      await store.clear()
      assert.equal(await store.length(), 0)
      assert.equal(await server.client.exists(`${prefix}foreign`), 1)
      await (client.disconnect?.() ?? client.end(false))
    })
  }
})
