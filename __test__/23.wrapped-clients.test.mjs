// Clients whose commands an application has wrapped: the wrapper sees every key.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { RESP_TYPES, createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })
const NAMESPACE = "tenant:"
const namespaced = (keys) => (Array.isArray(keys) ? keys.map((key) => NAMESPACE + key) : NAMESPACE + keys)
/** The methods that connect-redis calls. */
const WRAPPED = ["get", "set", "del", "expire", "mGet", "mget"]

const nodeRedis = async (name, options) => {
  const client = require(name).createClient({ url: server.url, ...options })
  return client.on("error", () => {}).connect()
}
const ioredisOf = (name) => {
  const module = require(name)
  return module.default ?? module
}

function proxied(client) {
  const get = (target, name) => {
    const value = target[name]
    if (WRAPPED.includes(name) && value !== undefined) {
      return (keys, ...rest) => value.call(target, namespaced(keys), ...rest)
    }
    return typeof value === "function" ? value.bind(target) : value
  }
  return new Proxy(client, { get })
}

/** A client with own methods, set on it or on `onto`. */
function patched(client, onto = client) {
  for (const name of WRAPPED.filter((each) => typeof client[each] === "function")) {
    const method = client[name].bind(client)
    onto[name] = (keys, ...rest) => method(namespaced(keys), ...rest)
  }
  return onto
}

function subclassed(Redis) {
  class Tenant extends Redis {
    get(key, ...rest) {
      return super.get(namespaced(key), ...rest)
    }
    set(key, ...rest) {
      return super.set(namespaced(key), ...rest)
    }
    del(...keys) {
      return super.del(namespaced(keys.flat().filter((key) => typeof key === "string")))
    }
    expire(key, ...rest) {
      return super.expire(namespaced(key), ...rest)
    }
  }
  return new Tenant(server.url)
}

const CLIENTS = {
  "a Proxy around redis 4": async () => proxied(await nodeRedis("redis-4")),
  "a Proxy around redis 5": async () => proxied(await nodeRedis("redis-5")),
  "a Proxy around redis 6": async () => proxied(await nodeRedis("redis")),
  "a Proxy around ioredis": async () => proxied(new (ioredisOf("ioredis"))(server.url)),
  "own methods on redis 3": async () => patched(require("redis-3").createClient(server.url)),
  "own methods on redis 4": async () => patched(await nodeRedis("redis-4")),
  "own methods on redis 4 in legacyMode": async () => patched(await nodeRedis("redis-4", { legacyMode: true })),
  "own methods on redis 6": async () => patched(await nodeRedis("redis")),
  "own methods on ioredis 4": async () => patched(new (ioredisOf("ioredis-4"))(server.url)),
  "own methods on ioredis 6": async () => patched(new (ioredisOf("ioredis"))(server.url)),
  "a subclass of ioredis 5": async () => subclassed(ioredisOf("ioredis-5")),
  "a subclass of ioredis 6": async () => subclassed(ioredisOf("ioredis")),
  "an object made from redis 6": async () => {
    const client = await nodeRedis("redis")
    return patched(client, Object.create(client))
  },
  "an object with connect-redis's methods and eval": async () => {
    const client = await nodeRedis("redis")
    const own = { eval: (...args) => client.eval(...args), disconnect: () => client.destroy() }
    return Object.assign(
      patched(client, {}),
      { scanIterator: (given) => client.scanIterator({ ...given, MATCH: NAMESPACE + given.MATCH }) },
      own,
    )
  },
}

const close = (client) => (client.disconnect ? client.disconnect() : client.end(false))

/** Whether a session exists that was loaded, removed by `remove`, and then saved. */
async function survives(store, sid, remove) {
  await store.set(sid, { cookie: cookie() })
  const loaded = store.createSession({ sessionID: sid, sessionStore: store }, await store.get(sid))
  await remove(sid)
  loaded.n = 1
  await store.set(sid, loaded)
  return (await store.get(sid)) !== null
}

describe("every command goes through the wrapper of", () => {
  for (const [name, make] of Object.entries(CLIENTS)) {
    test(name, async () => {
      const client = await make()
      try {
        const prefix = ownPrefix()
        const store = new RedisStore({ client, prefix })
        assert.equal(store.native, false)
        await store.set("a", { cookie: cookie(), n: 1 })
        assert.equal((await store.get("a")).n, 1)
        await store.touch("a", { cookie: { ...cookie(), expires: new Date(Date.now() + 2 * HOUR) } })
        assert.ok((await server.client.pTTL(`${NAMESPACE}${prefix}a`)) > HOUR)
        assert.equal(await store.ping(), "PONG")
        const evicted = await survives(store, "b", (sid) => server.client.del(`${NAMESPACE}${prefix}${sid}`))
        assert.equal(evicted, true)
        assert.equal(await survives(store, "c", (sid) => store.destroy(sid)), false)
        const keys = await server.client.keys(`*${prefix}*`)
        const expected = ["a", "b", `{${prefix}c}`].map((end) => NAMESPACE + prefix + end)
        assert.deepEqual(keys.toSorted(), expected.toSorted())
        await store.close()
      } finally {
        await close(client)
      }
    })
  }

  test("a wrapper that leaves its namespace on the keys of SCAN", async () => {
    const client = await CLIENTS["an object with connect-redis's methods and eval"]()
    try {
      const store = new RedisStore({ client, prefix: ownPrefix() })
      await store.set("a", { cookie: cookie() })
      assert.deepEqual([await store.length(), await store.ids()], [1, ["a"]])
      await store.clear()
      assert.equal(await store.length(), 0)
    } finally {
      await close(client)
    }
  })
})

describe("a client is adopted", () => {
  const ADOPTED = {
    "redis 4 in legacyMode": () => require("redis-4").createClient({ url: server.url, legacyMode: true }),
    "redis 6, mapped to Buffers": () =>
      require("redis")
        .createClient({ url: server.url })
        .withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }),
    "ioredis with a method of its own": () => {
      const client = new (ioredisOf("ioredis"))(server.url)
      client.defineCommand("twice", { numberOfKeys: 0, lua: "return 2" })
      return client
    },
    "ioredis whose sendCommand is traced": () => {
      const client = new (ioredisOf("ioredis"))(server.url)
      const { sendCommand } = client
      client.sendCommand = (...args) => sendCommand.apply(client, args)
      return client
    },
    "a subclass that wraps no command": () => {
      class Named extends ioredisOf("ioredis") {
        get label() {
          return "sessions"
        }
      }
      return new Named(server.url)
    },
  }
  for (const [name, make] of Object.entries(ADOPTED)) {
    test(name, async () => {
      const client = make()
      client.on("error", () => {})
      const store = new RedisStore({ client, prefix: ownPrefix() })
      assert.equal(store.native, true)
      await store.set("a", { cookie: cookie(), n: 1 })
      assert.equal((await store.get("a")).n, 1)
      await store.close()
      // A client of redis is not connected here.
      if (client.status !== undefined) client.disconnect()
    })
  }

  test("if a tracing tool has replaced a command on the prototype of its library", async () => {
    const Redis = ioredisOf("ioredis-5")
    const prototype = Object.getPrototypeOf(Redis.prototype)
    const { get } = prototype
    prototype.get = function (...args) {
      return get.apply(this, args)
    }
    const client = new Redis(server.url)
    try {
      assert.equal(new RedisStore({ client }).native, true)
    } finally {
      prototype.get = get
      client.disconnect()
    }
  })

  test("but not with a spy in place of a command, and the errors of options that need a connection name it", async () => {
    const client = new (ioredisOf("ioredis"))(server.url)
    const { get } = client
    client.get = (...args) => get.apply(client, args)
    try {
      assert.equal(new RedisStore({ client }).native, false)
      assert.throws(() => new RedisStore({ client, onConflict: "merge" }), {
        code: "ERR_REDIS_STORE_OPTIONS",
        message: /its method get\(\) is not the library's own/,
      })
    } finally {
      client.disconnect()
    }
  })
})

describe("replies that are bytes are read as UTF-8", () => {
  let raw
  before(async () => {
    raw = await createClient({ url: server.url }).connect()
  })
  after(() => raw.destroy())

  const mapped = () => raw.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
  const common = () => ({ set: (...args) => raw.set(...args), del: (keys) => raw.del(keys) })
  const BYTES = {
    "of scanIterator": () => ({
      ...common(),
      get: (key) => mapped().get(key),
      mGet: (keys) => mapped().mGet(keys),
      scanIterator: (given) => mapped().scanIterator(given),
    }),
    "of scan": () => ({
      ...common(),
      set: (...args) =>
        raw.sendCommand(["SET", ...args.filter((arg) => typeof arg === "string" || Number(arg)).map(String)]),
      get: async (key) => new Uint8Array(await mapped().get(key)),
      mget: async (keys) => (await mapped().mGet(keys)).map((bytes) => new Uint8Array(bytes)),
      scan: async (cursor, _match, pattern) => {
        const { cursor: next, keys } = await mapped().scan(String(cursor), { MATCH: pattern, COUNT: 2 })
        return [new TextEncoder().encode(String(next)), keys.map((key) => new Uint8Array(key))]
      },
    }),
  }
  for (const [name, make] of Object.entries(BYTES)) {
    test(name, async () => {
      const prefix = ownPrefix()
      const store = new RedisStore({ client: make(), prefix })
      const user = "Zoë 🦀"
      for (const sid of ["a", "b", "c", "é"]) await store.set(sid, { cookie: cookie(), user })
      assert.equal((await store.get("a")).user, user)
      assert.deepEqual((await store.ids()).toSorted(), ["a", "b", "c", "é"])
      assert.deepEqual(
        (await store.all()).map((found) => found.user),
        [user, user, user, user],
      )
      await store.clear()
      assert.equal(await store.length(), 0)
    })
  }
})
