// Options that connect-redis accepts do not throw, messages contain no secret, and the store reports its status.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, describe, test } from "node:test"

import connectRedis, { RedisStore } from "../index.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { script } from "./support/script.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"
import { until } from "../testing/until.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const url = "redis://127.0.0.1:1"
const stores = []
after(() => Promise.all(stores.map((store) => store.close())))

function open(options) {
  const store = new RedisStore(options)
  stores.push(store)
  return store
}

describe("options of connect-redis are read as connect-redis reads them", () => {
  const TAKEN = [
    [{ ttl: "3600" }, { ttl: 3600 }],
    [{ ttl: "" }, { ttl: 86400 }],
    [{ ttl: false }, { ttl: 86400 }],
    [{ scanCount: "500" }, { scanCount: 500 }],
    [{ scanCount: 0 }, { scanCount: 100 }],
    [{ scanCount: "50.5" }, { scanCount: 50 }],
    [{ scanCount: 2e6 }, { scanCount: 1_000_000 }],
    [{ disableTTL: "yes" }, { disableTTL: true }],
    [{ disableTTL: 0 }, { disableTTL: false }],
    [{ disableTouch: 1 }, { disableTouch: true }],
    [{ disableTouch: {} }, { disableTouch: true }],
    [{ disableTouch: "" }, { disableTouch: false }],
    [{ prefix: 5 }, { prefix: "5" }],
    [{ prefix: "" }, { prefix: "" }],
    [{ serializer: false }, { serializer: JSON }],
  ]
  for (const [options, fields] of TAKEN) {
    test(JSON.stringify(options), () => {
      const store = open({ url, ...options })
      for (const [name, value] of Object.entries(fields)) assert.equal(store[name], value)
    })
  }
  test("the field ttl, too", async () => {
    const store = open({ url: server.url, prefix: ownPrefix() })
    store.ttl = "60"
    await store.set("a", { cookie: {} })
    const left = await server.client.pTTL(`${store.prefix}a`)
    assert.ok(left > 50_000 && left <= 60_000, `${left} ms`)
  })
  test("options inherited from a class count, those from Object.prototype do not", async () => {
    class Options {
      get url() {
        return server.url
      }
      get prefix() {
        return "class:"
      }
    }
    assert.equal(open(new Options()).prefix, "class:")
    const { printed, errors } = await script(`
      Object.assign(Object.prototype, { prefix: "evil:", ttl: 1, tls: true, username: "evil", password: "evil", path: "/evil",
        sentinel: { name: "evil", nodes: ["evil"] }, keyPrefix: "evil:", credentials: () => { throw new Error("evil") }, tagSessions: true, host: "evil", database: 3 })
      const store = new RedisStore({ url: "${server.url}" })
      await store.set("polluted", { cookie: {} })
      console.log(store.prefix, store.ttl)
      await store.destroy("polluted")
      await store.close()
    `)
    assert.equal(printed, "sess: 86400\n", errors)
  })
})

describe("one process warning names every ignored option", () => {
  const client = { get() {}, set() {}, del() {} }
  const IGNORED = {
    perfix: [{ url, perfix: "a:" }, /"perfix" is unknown; did you mean "prefix"\?/],
    archive: [{ url, archive: true }, /"archive" is unknown/],
    secret: [{ client, secret: "hunter2" }, /"secret" is unknown/],
    auth_pass: [{ client, auth_pass: "hunter2" }, /"auth_pass" is unknown/],
    host: [{ client, host: "hunter2" }, /"host" is a setting of the client/],
    url: [{ client, url: "redis://:hunter2@h" }, /"url" is a setting of the client/],
    password: [{ client, password: "hunter2" }, /"password" is a setting of the client/],
    nodes: [{ client, nodes: "hunter2" }, /"nodes" is a setting of the client/],
    tls: [{ client, tls: "hunter2" }, /"tls" is a setting of the client/],
  }
  for (const [name, [options, pattern]] of Object.entries(IGNORED)) {
    test(name, async () => {
      const warnings = []
      const listen = (warning) => warnings.push(warning)
      process.on("warning", listen)
      open(options)
      open(options)
      await until("the warning", () => warnings.length > 0)
      await new Promise((resolve) => setImmediate(resolve))
      process.off("warning", listen)
      assert.equal(warnings.length, 1)
      assert.equal(warnings[0].code, "CONNECT_REDIS_NATIVE_IGNORED_OPTION")
      assert.match(warnings[0].message, pattern)
      assert.doesNotMatch(warnings[0].message, /hunter2/)
    })
  }
})

describe("no error message contains a secret", () => {
  const secret = "hunter2"
  const at = `redis://:${secret}@host:1`
  const WRONG = [
    secret,
    at,
    { credentials: secret, url },
    { url, tls: secret },
    { url, database: secret },
    { url, clientName: `redis://:${secret} x` },
    { url, username: [secret] },
    { url, password: [secret] },
    { url: `${secret}:6379` },
    { nodes: at },
    { nodes: [at] },
    { sentinel: at },
    { sentinel: { name: "m", nodes: at } },
    { sentinel: { name: "m", nodes: [at] } },
    { sentinel: { name: [secret], nodes: ["h"] } },
    { url, ttl: at },
    { url, scanCount: at },
    { url, onConflict: at },
    { client: secret },
  ]
  for (const options of WRONG) {
    test(JSON.stringify(options), () => {
      assert.throws(
        () => open(options),
        (error) => error.code === "ERR_REDIS_STORE_OPTIONS" && !error.message.includes(secret),
      )
    })
  }
  test("nor does the error of a call", () => {
    for (const call of [() => connectRedis(secret), () => open({ url }).get("a", secret)]) {
      assert.throws(call, (error) => error instanceof TypeError && !error.message.includes(secret))
    }
  })
})

describe("a server that quotes the arguments of the login commands", () => {
  const SERVERS = {
    "AUTH as an unknown command": (words) =>
      words[0] === "AUTH" ? `-ERR unknown command 'AUTH', with args beginning with: '${words.at(-1)}' \r\n` : "+OK\r\n",
    "and hangs up": (words, _connection, socket) => {
      if (words[0] !== "AUTH") return ""
      socket.end(`-ERR unknown command 'AUTH', with args beginning with: '${words.at(-1)}' \r\n`)
      return ""
    },
    "with another message, and hangs up": (words, _connection, socket) => {
      if (words[0] !== "AUTH") return ""
      socket.end(`-ERR no ${words.at(-1)} here\r\n`)
      return ""
    },
  }
  for (const [name, answer] of Object.entries(SERVERS)) {
    test(name, async () => {
      const fake = await startFakeServer(answer)
      const store = open({ url: fake.url, username: "me", password: "hunter2", commandTimeoutMs: 300 })
      const errors = []
      store.on("error", (error) => errors.push(error))
      const error = await store.get("a").catch((failure) => failure)
      errors.push(error)
      for (const { code, message, cause } of errors) {
        assert.match(code, /^ERR_REDIS_STORE_/)
        assert.doesNotMatch(`${message} ${cause?.message} ${cause?.code}`, /hunter2/)
      }
      await store.close()
      fake.stop()
    })
  }
  test("a real server with a renamed AUTH", async () => {
    const real = await startServer({ args: ["--rename-command", "AUTH", ""] })
    const store = open({ url: real.url, username: "me", password: "hunter2", commandTimeoutMs: 300 })
    const error = await store.get("a").catch((failure) => failure)
    assert.doesNotMatch(`${error.message} ${error.cause?.message}`, /hunter2/)
    await store.close()
    await real.stop()
  })
})

test("status is connecting, ready, down and closed", async () => {
  const first = await startServer()
  const store = open({ url: first.url, commandTimeoutMs: 300 })
  assert.equal(store.status, "connecting")
  await store.ping()
  assert.equal(store.status, "ready")
  await first.stop()
  await until("it is connecting or down", () => store.status !== "ready")
  await until("it is down", () => store.status === "down")
  const second = await startServer({ port: first.port })
  await until("it is ready", () => store.status === "ready")
  await store.close()
  assert.equal(store.status, "closed")
  assert.equal("state" in store, false)
  await second.stop()
  const delegating = open({ client: { get() {}, set() {}, del() {} } })
  assert.equal(delegating.status, "ready")
  await delegating.close()
  assert.equal(delegating.status, "closed")
})

test("a cause has the code of the server's error, natively and delegating", async () => {
  const full = await startServer({ args: ["--maxmemory", "1"] })
  const client = await require("redis").createClient({ url: full.url, RESP: 2 }).connect()
  const bare = { get: (...args) => client.get(...args), set: (...args) => client.set(...args), mGet() {}, del() {} }
  for (const options of [{ url: full.url }, { client: bare }]) {
    const error = await open(options)
      .set("a", { cookie: {} })
      .catch((failure) => failure)
    assert.deepEqual([error.code, error.cause.code], ["ERR_REDIS_STORE_SERVER", "OOM"])
  }
  await client.close()
  await full.stop()
})

test("the latency bounds of a store that delegates equal the binding's", () => {
  const { BOUNDS_MS } = require("../lib/observe/stats.js")
  const protocol = require("../lib/native/protocol.js").loadProtocol()
  assert.deepEqual(BOUNDS_MS, protocol.latencyBoundsMs)
  const marker = require("../lib/races/marker.js")
  const words = (script) => script.split(/\s+/).join(" ")
  assert.equal(marker.MARKER_LIFE_MS, protocol.markerLifeMs)
  assert.equal(words(marker.RESTORE_SCRIPT), words(protocol.restoreScript))
})

test("a copy of the package whose stores are closed is garbage collected, and leaves no handle", async () => {
  const { printed, errors } = await script(
    `import { createRequire } from "node:module"
    import { createHook } from "node:async_hooks"
    import v8 from "node:v8"
    import vm from "node:vm"
    v8.setFlagsFromString("--expose-gc")
    const gc = vm.runInNewContext("gc")
    const require = createRequire(import.meta.url)
    const open = new Map()
    createHook({
      init: (id, type) => { if (/RedisStore|napi_rs|connect/.test(type)) open.set(id, type) },
      destroy: (id) => open.delete(id),
    }).enable()
    const refs = []
    const use = async () => {
      for (const name of Object.keys(require.cache)) if (name.includes("/lib/") || name.endsWith("/index.js")) delete require.cache[name]
      const fresh = createRequire(import.meta.url)("./index.js").RedisStore
      const store = new fresh({ url: "${server.url}" })
      await store.set("copy", { cookie: {} })
      await store.close()
      refs.push(new WeakRef(fresh))
    }
    for (let copy = 0; copy < 5; copy++) await use()
    for (const name of Object.keys(require.cache)) if (name.includes("/lib/") || name.endsWith("/index.js")) delete require.cache[name]
    const deadline = Date.now() + 5000
    const alive = () => refs.filter((ref) => ref.deref() !== undefined).length
    while ((alive() > 0 || open.size > 0) && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      gc()
    }
    console.log(alive(), [...open.values()].join())`,
  )
  assert.equal(printed, "0 \n", errors)
})
