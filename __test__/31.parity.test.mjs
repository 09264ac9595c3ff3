// Programs that work with connect-redis 10 work here.
import assert from "node:assert/strict"
import { AsyncLocalStorage } from "node:async_hooks"
import { createRequire } from "node:module"
import { after, describe, test } from "node:test"

import { RedisStore, RedisStoreError } from "../index.mjs"
import { script } from "./support/script.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { called, until } from "../testing/until.mjs"

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

const cookie = { originalMaxAge: null }
const load = async (store, sid) => store.createSession({ sessionID: sid, sessionStore: store }, await store.get(sid))

/** A client with exactly the methods that connect-redis 10 calls, over one of redis 6. */
async function wrapped() {
  const client = await require("redis").createClient({ url: server.url, RESP: 2 }).connect()
  const asked = []
  const wrapper = {}
  for (const name of ["get", "set", "expire", "del", "mGet", "scanIterator"]) {
    wrapper[name] = (...args) => {
      asked.push([name, ...args])
      return client[name](...args)
    }
  }
  return { client, wrapper, asked }
}

test("a callback that is false, 0 or empty counts as absent", async () => {
  const store = open()
  for (const none of [false, 0, "", null, undefined]) {
    assert.equal(await store.set("a", { cookie, n: 1 }, none), null)
    assert.equal((await store.get("a", none)).n, 1)
    assert.equal((await store.all(none)).length, 1)
  }
})

describe("set of an expired session calls destroy, which may be replaced", () => {
  const expired = { cookie: { originalMaxAge: 60_000, expires: new Date(0) } }
  const REPLACED = {
    "by a subclass": (destroyed) =>
      class extends RedisStore {
        destroy(sid, done) {
          destroyed.push(sid)
          return super.destroy(sid, done)
        }
      },
    "by a wrapper on the store": (destroyed) =>
      class extends RedisStore {
        constructor(options) {
          super(options)
          const { destroy } = this
          this.destroy = function (sid, done) {
            destroyed.push(sid)
            return destroy.call(this, sid, done)
          }
        }
      },
    "by one that calls back without a result": (destroyed) =>
      class extends RedisStore {
        destroy(sid, done) {
          super.destroy(sid, () => done(destroyed.push(sid) > 0 ? undefined : null))
        }
      },
  }
  for (const [name, make] of Object.entries(REPLACED)) {
    test(name, async () => {
      const destroyed = []
      const Class = make(destroyed)
      const store = new Class({ url: server.url, prefix: ownPrefix() })
      stores.push(store)
      await store.set("a", { cookie })
      const session = await load(store, "a")
      await store.set("a", expired)
      const [error] = await called((done) => store.set("b", expired, done))
      assert.equal(error, null)
      assert.deepEqual(destroyed, ["a", "b"])
      assert.equal(await store.get("a"), null)
      // A save with a new cookie is written, as the session was not destroyed by the application.
      await store.set("a", session)
      assert.notEqual(await store.get("a"), null)
      await store.set("a", { cookie: { originalMaxAge: 0, expires: new Date(0) } })
      await store.set("a", session)
      assert.equal(await store.get("a"), null)
    })
  }
  test("its error is that of set", async () => {
    const mine = new Error("mine")
    const store = open()
    store.destroy = (_sid, done) => done(mine)
    assert.equal((await called((done) => store.set("a", expired, done)))[0], mine)
    await assert.rejects(store.set("a", expired), mine)
    store.destroy = () => {
      throw mine
    }
    assert.equal((await called((done) => store.set("a", expired, done)))[0], mine)
    await assert.rejects(store.set("a", expired), mine)
  })
})

test("all() parses the sessions of a page in parallel", async () => {
  let parsing = 0
  let most = 0
  const parse = async (text) => {
    most = Math.max(most, ++parsing)
    await new Promise((resolve) => setImmediate(resolve))
    parsing--
    return JSON.parse(text)
  }
  const store = open({ serializer: { stringify: JSON.stringify, parse } })
  for (let n = 0; n < 10; n++) await store.set(`s${n}`, { cookie, n })
  assert.equal((await store.all()).length, 10)
  assert.equal(most, 10)
})

describe("a callback that throws on success is called once more, with its own error", () => {
  const CALLS = {
    get: (store, done) => store.get("a", done),
    "get of a miss": (store, done) => store.get("none", done),
    set: (store, done) => store.set("a", { cookie }, done),
    touch: (store, done) => store.touch("a", { cookie }, done),
    destroy: (store, done) => store.destroy("b", done),
    length: (store, done) => store.length(done),
    ids: (store, done) => store.ids(done),
    all: (store, done) => store.all(done),
    ping: (store, done) => store.ping(done),
    "set of an expired session": (store, done) => store.set("c", { cookie: { expires: new Date(0) } }, done),
    "touch with disableTouch": (store, done) => {
      store.disableTouch = true
      store.touch("a", { cookie }, done)
      store.disableTouch = false
    },
    clear: (store, done) => store.clear(done),
  }
  const client = () => require("redis").createClient({ url: server.url }).connect()
  const STORES = {
    native: async () => [open(), () => {}],
    delegating: async () => {
      const found = await client()
      const bare = Object.fromEntries(
        ["get", "set", "pExpire", "del", "scan", "mGet", "ping"].map((name) => [
          name,
          (...args) => found[name](...args),
        ]),
      )
      const store = open({ client: bare })
      assert.equal(store.native, false)
      return [store, () => found.close()]
    },
  }
  for (const [kind, make] of Object.entries(STORES)) {
    for (const [name, call] of Object.entries(CALLS)) {
      test(`${kind}: ${name}`, async () => {
        const [store, end] = await make()
        await store.set("a", { cookie })
        const storage = new AsyncLocalStorage()
        const thrown = new Error("mine")
        const seen = []
        const others = storage.run("caller", () => {
          const done = new Promise((resolve) => {
            call(store, (error, value) => {
              seen.push([error, storage.getStore()])
              if (seen.length === 1) throw thrown
              resolve(value)
            })
          })
          return Promise.all([done, store.get("a"), store.get("a")])
        })
        const [value] = await others
        assert.equal(value, null)
        assert.deepEqual(seen, [
          [null, "caller"],
          [thrown, "caller"],
        ])
        await end()
      })
    }
  }

  test("a callback that throws on an error is not called again", async () => {
    const { printed } = await script(`
      let calls = 0
      process.on("uncaughtException", (error) => console.log(error.message, calls))
      const store = new RedisStore({ url: "redis://127.0.0.1:1", commandTimeoutMs: 50 })
      store.get("a", () => {
        calls++
        throw new Error("mine")
      })
    `)
    assert.equal(printed, "mine 1\n")
  })
})

test("a Proxy around a store works as a store, with a callback or without", async () => {
  const store = new Proxy(open(), {})
  assert.deepEqual(await called((done) => store.set("a", { cookie, n: 1 }, done)), [null, null])
  assert.equal((await store.get("a")).n, 1)
  assert.deepEqual(await called((done) => store.touch("a", { cookie }, done)), [null, null])
  assert.deepEqual(await called((done) => store.destroy("a", done)), [null, null])
  assert.equal(await store.length(), 0)
  assert.equal(store.status, "ready")
})

describe("a value that a template string accepts is a session id", () => {
  for (const sid of [7, 0, -1.5, 10n, true]) {
    test(`${typeof sid} ${sid}`, async () => {
      const store = open()
      await store.set(sid, { cookie, n: 1 })
      assert.equal(await server.client.exists(`${store.prefix}${sid}`), 1)
      assert.equal((await store.get(sid)).n, 1)
      await store.touch(sid, { cookie })
      await store.destroy(sid)
      assert.equal(await store.get(`${sid}`), null)
    })
  }
})

describe("a session counts as loaded only if this store has read it under this key", () => {
  const make = (store, sid, data) => store.createSession({ sessionID: sid, sessionStore: store }, data)
  const withPrefix = (store, prefix) =>
    new Proxy(store, { get: (target, name) => (name === "prefix" ? prefix : target[name]) })
  const DATA = {
    "made by the application": () => ({ cookie: {}, n: 1 }),
    "read by another store": async () => {
      const other = open()
      await other.set("a", { cookie, n: 1 })
      return other.get("a")
    },
    "read under another id": async (store) => {
      await store.set("old", { cookie, n: 1 })
      return store.get("old")
    },
    "read under another prefix": async (store) => {
      const { prefix } = store
      store.prefix = `${prefix}old:`
      await store.set("a", { cookie, n: 1 })
      const data = await store.get("a")
      store.prefix = prefix
      return data
    },
    "read under another prefix, which has changed before the reply": async (store) => {
      const { prefix } = store
      store.prefix = `${prefix}old:`
      await store.set("a", { cookie, n: 1 })
      const reply = store.get("a")
      store.prefix = prefix
      const data = await reply
      await store.set("a", { cookie, n: 0 })
      await store.destroy("a")
      return data
    },
    "read under the prefix of a Proxy": async (store) => {
      const other = withPrefix(store, `${store.prefix}old:`)
      await other.set("a", { cookie, n: 1 })
      const data = await other.get("a")
      await store.set("a", { cookie, n: 0 })
      await store.destroy("a")
      return data
    },
  }
  for (const [name, read] of Object.entries(DATA)) {
    for (const onConflict of ["overwrite", "merge", "error"]) {
      test(`${name}, onConflict ${onConflict}: it is stored`, async () => {
        const store = open({ onConflict })
        await store.set("a", make(store, "a", await read(store)))
        assert.equal((await store.get("a")).n, 1)
      })
    }
  }
  for (const onConflict of ["overwrite", "merge", "error"]) {
    test(`read by the store, saved under the prefix of a Proxy, onConflict ${onConflict}: it is stored`, async () => {
      const store = open({ onConflict })
      const other = withPrefix(store, `${store.prefix}other:`)
      await store.set("a", { cookie, n: 1 })
      const session = make(store, "a", await store.get("a"))
      await other.set("a", { cookie, n: 0 })
      await other.destroy("a")
      await other.set("a", session)
      assert.equal((await other.get("a")).n, 1)
    })
  }
  test("read under this key by all(), and made by a Proxy: a logout stays a logout", async () => {
    const store = open()
    const other = withPrefix(store, `${store.prefix}other:`)
    await other.set("a", { cookie, n: 1 })
    const [data] = await other.all()
    const session = make(other, "a", data)
    await other.destroy("a")
    await other.set("a", session)
    assert.equal(await other.get("a"), null)
  })
  test("a parser's then is read once, as promises do", async () => {
    let reads = 0
    const parsed = { cookie: {}, n: 1 }
    const then = () => (reads++ === 0 ? (resolve) => resolve(parsed) : undefined)
    const lazy = new Proxy({}, { get: (_target, name) => (name === "then" ? then() : undefined) })
    const store = open({ serializer: { parse: () => lazy, stringify: JSON.stringify } })
    await store.set("a", { cookie: {}, n: 1 })
    assert.equal(await store.get("a"), parsed)
    assert.equal(reads, 1)
  })
  test("read under this key: a logout stays a logout, also if a serializer returns one object twice", async () => {
    const one = { cookie: {}, n: 1 }
    for (const serializer of [JSON, { parse: () => one, stringify: JSON.stringify }]) {
      const store = open({ serializer })
      await store.set("a", { cookie: {}, n: 1 })
      await store.get("a")
      const data = await store.get("a")
      assert.deepEqual(Reflect.ownKeys(data), ["cookie", "n"])
      const session = make(store, "a", data)
      await store.destroy("a")
      await store.set("a", session)
      assert.equal(await server.client.exists(`${store.prefix}a`), 0)
    }
  })
})

describe("a callback that runs the event loop itself, and every other callback, gets its own reply", () => {
  test("requests of the same turn, and one that is made inside", async () => {
    const { printed, exitCode, errors } = await script(
      `import { createRequire } from "node:module"
      const binding = createRequire(import.meta.url)("./lib/native/load.js").load()
      const Native = binding.RedisStore
      let native
      let wake
      binding.RedisStore = class {
        constructor(settings, woken, ask) {
          wake = woken
          native = new Native(settings, woken, ask)
          return native
        }
      }
      const store = new RedisStore({ url: "${server.url}", prefix: "${ownPrefix()}" })
      const ids = Array.from({ length: 40 }, (_, n) => "s" + n)
      await Promise.all(ids.map((sid) => store.set(sid, { cookie: {}, sid })))
      const seen = {}
      let nested = 0
      await Promise.all(ids.map((sid) => new Promise((resolve) => {
        store.get(sid, (error, session) => {
          seen[sid] = (seen[sid] ?? "") + session.sid
          // A nested event loop calls everything that is due.
          if (nested++ < 5) wake()
          resolve()
        })
      })))
      console.log(ids.every((sid) => seen[sid] === sid), ids.length)
      await store.close()`,
    )
    assert.deepEqual([printed, exitCode], ["true 40\n", 0], errors)
  })
})

describe("a client that has only the methods that connect-redis 10 calls", () => {
  test("serves every method", async () => {
    const { client, wrapper, asked } = await wrapped()
    const store = open({ client: wrapper })
    assert.equal(store.native, false)
    await store.set("a", { cookie, n: 1 })
    assert.deepEqual(asked[0], [
      "set",
      `${store.prefix}a`,
      JSON.stringify({ cookie, n: 1 }),
      { expiration: { type: "EX", value: 86400 } },
    ])
    assert.equal((await store.get("a")).n, 1)
    await store.touch("a", { cookie })
    assert.deepEqual(asked.at(-1), ["expire", `${store.prefix}a`, 86400])
    assert.equal(await store.length(), 1)
    assert.deepEqual(await store.ids(), ["a"])
    assert.equal((await store.all())[0].n, 1)
    const session = await load(store, "a")
    await store.destroy("a")
    assert.deepEqual(asked.at(-1), ["del", [`${store.prefix}a`]])
    await store.set("a", session)
    assert.equal(await store.get("a"), null)
    await store.set("b", { cookie })
    await store.clear()
    assert.equal(await store.length(), 0)
    await client.close()
  })

  test("if a mock lacks a method, the call that needs it fails", async () => {
    const kept = new Map()
    const client = {
      get: async (key) => kept.get(key) ?? null,
      set: async (key, value) => void kept.set(key, value),
      del: async (keys) => [keys].flat().filter((key) => kept.delete(key)).length,
    }
    const store = open({ client })
    await store.set("a", { cookie, n: 1 })
    assert.equal((await store.get("a")).n, 1)
    await assert.rejects(store.touch("a", { cookie }), {
      code: "ERR_REDIS_STORE_OPTIONS",
      message: /no method expire\(\)/,
    })
    await assert.rejects(store.length(), { code: "ERR_REDIS_STORE_OPTIONS", message: /no method scanIterator\(\)/ })
    await store.destroy("a")
    assert.equal(await store.get("a"), null)
  })

  test("a rejection without a reason is still an error", async () => {
    for (const nothing of [undefined, null, 0, ""]) {
      const store = open({ client: { get: () => Promise.reject(nothing), set() {}, del() {} } })
      await assert.rejects(store.get("a"), { code: "ERR_REDIS_STORE_SERVER" })
    }
  })
})

describe("stores over one client", () => {
  const names = async () => {
    const list = await server.client.clientList()
    return list.length
  }
  test("with equal limits share a connection, and close() of one leaves the others", async () => {
    const client = await require("redis").createClient({ url: server.url }).connect()
    const before = await names()
    const shared = Array.from({ length: 40 }, () => new RedisStore({ client, prefix: ownPrefix() }))
    await Promise.all(shared.map((store, n) => store.set("a", { cookie, n })))
    assert.equal(await names(), before + 1)
    assert.deepEqual(await Promise.all(shared.map(async (store) => (await store.get("a")).n)), [...shared.keys()])
    assert.equal(shared[0].stats().sharedBy, 40)
    await shared[0].close()
    assert.deepEqual([shared[0].status, shared[1].status], ["closed", "ready"])
    await assert.rejects(shared[0].get("a"), { code: "ERR_REDIS_STORE_CLOSED" })
    assert.equal((await shared[1].get("a")).n, 1)
    const late = new RedisStore({ client, prefix: ownPrefix() })
    const ready = new Promise((resolve) => late.on("ready", resolve))
    await ready
    assert.equal(await names(), before + 1)
    await Promise.all([late, ...shared].map((store) => store.close()))
    await until("the connection is closed", async () => (await names()) === before)
    await client.close()
  })

  test("with other limits, or after a change of the client's settings, do not", async () => {
    const client = await require("redis").createClient({ url: server.url }).connect()
    const before = await names()
    const first = open({ client })
    await first.ping()
    const other = open({ client, commandTimeoutMs: 1234 })
    await other.ping()
    await client.select(3)
    const elsewhere = open({ client })
    await elsewhere.set("a", { cookie })
    assert.equal(await names(), before + 3)
    assert.equal(await client.exists(`${elsewhere.prefix}a`), 1)
    await client.close()
  })
})

test("all() reads 40 sessions of 7 MB, and warns once with the number of corrupt values", async () => {
  const store = open({ commandTimeoutMs: 20_000 })
  const text = "x".repeat(7_000_000)
  for (let n = 0; n < 40; n++) await store.set(`large${n}`, { cookie: {}, text })
  const many = Array.from({ length: 2000 }, (_, n) => [`${store.prefix}corrupt${n}`, "{"])
  await server.client.mSet(many)
  const warnings = []
  const listen = (warning) => warnings.push(warning)
  process.on("warning", listen)
  const all = await store.all()
  await until("the warning", () => warnings.length > 0)
  process.off("warning", listen)
  assert.equal(all.length, 40)
  assert.equal(warnings.length, 1)
  assert.match(warnings[0].message, /skips 2000 sessions/)
  await store.clear()
})

test("await using closes a store", async () => {
  const store = open()
  await store.set("a", { cookie })
  await store[Symbol.asyncDispose]()
  assert.equal(store.status, "closed")
})

test("--no-addons: the error names the reason and the flags", async () => {
  const { spawnSync } = require("node:child_process")
  const code = `require("./index.js"); try { new (require("./index.js").RedisStore)({ url: "redis://127.0.0.1:1" }) } catch (error) { console.log(error.message) }`
  const run = (...flags) =>
    spawnSync(process.execPath, [...flags, "-e", code], { cwd: new URL("..", import.meta.url), encoding: "utf8" })
  const permission = process.version.startsWith("v20.") ? "--experimental-permission" : "--permission"
  for (const flags of [["--no-addons"], [permission, "--allow-fs-read=*"]]) {
    const { stdout, stderr } = run(...flags)
    assert.match(stdout, /Native addons are disabled/, stderr)
    assert.match(stdout, /--allow-addons/)
    assert.doesNotMatch(stdout, /damaged|delete node_modules/)
  }
})

test("an error of the store is a RedisStoreError whose cause has the system's code", async () => {
  const store = open({ url: "redis://127.0.0.1:1", commandTimeoutMs: 100 })
  const error = await store.get("a").catch((failure) => failure)
  assert.ok(error instanceof RedisStoreError)
  assert.deepEqual([error.code, error.cause.code], ["ERR_REDIS_STORE_CONNECT", "ECONNREFUSED"])
})
