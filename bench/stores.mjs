import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

const require = createRequire(import.meta.url)

export const BASELINE = "baseline"
export const OURS = "native"

// `load` only loads modules, to distinguish a store that is not installed from one that does not work.
// It returns `open(urls, prefix, ca)`, which resolves to `{store, close}`.
export const STORES = [
  {
    name: BASELINE,
    title: "connect-redis 10 + redis 6",
    packages: ["connect-redis", "redis"],
    cluster: true,
    load() {
      const { RedisStore } = require("connect-redis")
      return openOverRedis(RedisStore, require("redis"))
    },
  },
  {
    name: OURS,
    title: "connect-redis-native, adopting a redis 6 client",
    overTls: { title: "connect-redis-native, with a url", packages: ["connect-redis-native"] },
    packages: ["connect-redis-native", "redis"],
    cluster: true,
    load() {
      const { RedisStore } = require("../index.js")
      const adopting = openOverRedis(RedisStore, require("redis"))
      return (urls, prefix, ca) => (ca ? openByUrl(RedisStore, urls, prefix, ca) : adopting(urls, prefix))
    },
  },
  {
    name: "cr8-ioredis",
    title: "connect-redis 8 + ioredis 6",
    packages: ["connect-redis-8", "ioredis"],
    load() {
      const { RedisStore } = require("connect-redis-8")
      return openOverIoredis(RedisStore, require("ioredis"), {})
    },
  },
  {
    name: "cr6-ioredis-auto",
    title: "connect-redis 6 + ioredis 6 with enableAutoPipelining",
    packages: ["connect-redis-6", "ioredis"],
    load() {
      const RedisStore = require("connect-redis-6")(require("express-session"))
      return openOverIoredis(RedisStore, require("ioredis"), { enableAutoPipelining: true })
    },
  },
  {
    name: "memory",
    title: "express-session's MemoryStore (no Redis)",
    packages: ["express-session"],
    inProcess: true,
    load() {
      const { MemoryStore } = require("express-session")
      return async () => ({ store: new MemoryStore(), close: async () => {} })
    },
  },
]

export function findStore(name) {
  return STORES.find((store) => store.name === name)
}

// A store that delegates would measure the baseline under our name.
function refuseDelegation(store) {
  if (store.native === false) {
    throw new Error("store.native is false: the client was delegated to, not adopted; nothing native to measure")
  }
}

export function makeRedisClient({ createClient, createCluster }, urls, ca) {
  if (urls.length > 1) return createCluster({ rootNodes: urls.map((url) => ({ url })) })
  return createClient({ url: urls[0], ...(ca && { socket: { tls: true, ca } }) })
}

async function openByUrl(RedisStore, [url], prefix, ca) {
  const store = new RedisStore({ url, tls: { ca }, prefix })
  return { store, close: () => store.close() }
}

function openOverRedis(RedisStore, redis) {
  return async (urls, prefix, ca) => {
    const client = makeRedisClient(redis, urls, ca)
    failOnError(client)
    await client.connect()
    const store = new RedisStore({ client, prefix })
    refuseDelegation(store)
    return {
      store,
      close: async () => {
        await store.close?.()
        await client.close()
      },
    }
  }
}

function openOverIoredis(RedisStore, { Redis }, options) {
  return async ([url], prefix, ca) => {
    const client = new Redis(url, { ...options, lazyConnect: true, ...(ca && { tls: { ca } }) })
    failOnError(client)
    await client.connect()
    return {
      store: new RedisStore({ client, prefix }),
      close: async () => {
        await client.quit()
      },
    }
  }
}

// A reconnect would distort the figures unnoticed.
function failOnError(client) {
  client.on("error", (error) => {
    throw error
  })
}

// Not `require(name + "/package.json")`: connect-redis does not export it.
export function versionsOf({ packages }) {
  return packages.map((name) => {
    const path = name === "connect-redis-native" ? "../package.json" : `../node_modules/${name}/package.json`
    const { name: realName, version } = JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"))
    return `${realName} ${version}`
  })
}
