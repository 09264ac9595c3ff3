// Without the native binary: the same semantics through the client's own commands.
import assert from "node:assert/strict"
import { once } from "node:events"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import { called, until } from "../testing/until.mjs"
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
    assert.match(found[0].message, /^no binary here\. Until then, stores call the commands/)
  })

  test("a store with a url throws an error that names the remedy", () => {
    assert.throws(
      () => new RedisStore({ url: server.url }),
      (error) => error === missing,
    )
  })
})

describe("a delegate", () => {
  const slow = { get() {}, set() {}, expire() {}, del() {}, scan() {}, mget() {} }

  test("requests end by the deadline if the client does not answer", async () => {
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

  test("continues with a key after a refused request, for clients that do not keep the order", async () => {
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

  test("wraps every error of the client: thrown, rejected or passed to the callback", async () => {
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

  test("an unreadable reply fails its request only", async () => {
    const store = new RedisStore({ client: { ...slow, scan: async () => ["0", ["sess:a"]], mget: async () => 5 } })
    await assert.rejects(store.all(), { code: "ERR_REDIS_STORE_SERVER" })
  })

  test("close() closes the store", async () => {
    const store = new RedisStore({ client: slow })
    await store.close()
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_CLOSED" })
  })

  /** A client with connect-redis's methods, each slower than a turn of the event loop. */
  const late = () => {
    const slowly =
      (name) =>
      async (...args) => {
        await new Promise((resolve) => setTimeout(resolve, 5))
        return server.client[name](...args)
      }
    const client = {
      async *scanIterator(given) {
        yield* await slowly("scan")("0", given).then(({ keys }) => [keys])
      },
    }
    for (const name of ["get", "set", "del", "expire", "mGet", "ping"]) client[name] = slowly(name)
    return client
  }

  test("close() waits for earlier requests and refuses later ones", async () => {
    const store = new RedisStore({ client: late(), prefix: ownPrefix() })
    for (let n = 0; n < 40; n++) await store.set(`s${n}`, session)
    const loaded = store.createSession({ sessionID: "s0", sessionStore: store }, await store.get("s0"))
    await server.client.del(`${store.prefix}s0`)
    const asked = {
      gone: store.set("s0", loaded),
      set: store.set("new", session),
      destroy: store.destroy("s1"),
      length: store.length(),
      ids: store.ids(),
      all: store.all(),
      ping: store.ping(),
    }
    let isClosed = false
    const closed = store.close().then(() => (isClosed = true))
    assert.equal(store.status, "ready")
    const code = "ERR_REDIS_STORE_CLOSED"
    await Promise.all([
      assert.rejects(store.get("s2"), { code }),
      assert.rejects(store.length(), { code }),
      assert.rejects(store.all(), { code }),
    ])
    const answered = Object.fromEntries(
      await Promise.all(Object.entries(asked).map(async ([name, promise]) => [name, await promise, isClosed])),
    )
    assert.equal(isClosed, false)
    await closed
    assert.equal(store.status, "closed")
    assert.ok(answered.all.length >= 38, String(answered.all.length))
    assert.equal(await server.client.exists(`${store.prefix}s0`), 1)
    assert.equal(await server.client.exists(`${store.prefix}new`), 1)
  })

  test("emits ready once, and connect with emitConnectionEvents", async () => {
    const store = new RedisStore({ client: slow, emitConnectionEvents: true })
    const seen = []
    for (const event of ["ready", "connect", "disconnect", "end"]) store.on(event, () => seen.push(event))
    await once(store, "connect")
    await store.close()
    assert.deepEqual(seen, ["ready", "connect", "end"])
  })

  test("emits no ready if it was closed before", async () => {
    const store = new RedisStore({ client: slow })
    const seen = []
    store.on("ready", () => seen.push("ready"))
    await store.close()
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    assert.deepEqual(seen, [])
  })

  for (const refusal of [null, 0, false]) {
    test(`takes ${refusal} as a refused SET XX`, async () => {
      const values = new Map()
      const client = {
        ...slow,
        get: async (key) => values.get(key) ?? null,
        set: async (key, value, ...options) => {
          if (options.includes("XX") && !values.has(key)) return refusal
          values.set(key, value)
          return "OK"
        },
      }
      const store = new RedisStore({ client })
      await store.set("sid", session)
      const loaded = store.createSession({ sessionID: "sid", sessionStore: store }, await store.get("sid"))
      values.clear()
      await store.set("sid", loaded)
      assert.equal(values.size, 1)
    })
  }

  test("over a pool, markers are written before the deletions", async () => {
    const pool = await require("redis")
      .createClientPool({ url: server.url }, { minimum: 4, maximum: 8 })
      .on("error", () => {})
      .connect()
    const store = new RedisStore({ client: pool, prefix: ownPrefix() })
    const watching = await require("redis").createClient({ url: server.url }).connect()
    const lines = []
    await watching.monitor((line) => lines.push(String(line)))
    const sids = Array.from({ length: 100 }, (_, n) => `s${n}`)
    for (const sid of sids) {
      await store.set(sid, session)
      await Promise.all([store.get("other"), store.get("another"), store.destroy(sid)])
    }
    const at = (command, key) => lines.findIndex((line) => line.includes(`"${command}" "${store.prefix}${key}"`))
    await until("the last deletion", () => at("DEL", sids.at(-1)) !== -1)
    const late = sids.filter((sid) => at("SET", `{${store.prefix}${sid}}`) > at("DEL", sid))
    assert.deepEqual(late, [])
    watching.destroy()
    pool.destroy()
  })

  const Redis = require("ioredis").default ?? require("ioredis")
  const PREFIXED = {
    ioredis: () => new Redis(server.url, { keyPrefix: "kp[0]:" }),
    "redis 6": () => require("redis").createClient({ url: server.url, keyPrefix: "kp[0]:" }).connect(),
    "redis 3": () => require("redis-3").createClient(server.url, { prefix: "kp[0]:" }),
  }
  for (const [name, make] of Object.entries(PREFIXED)) {
    test(`uses the key prefix of ${name}`, async () => {
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
