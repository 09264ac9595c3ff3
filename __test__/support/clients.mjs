import { createRequire } from "node:module"

import { startRestStub } from "./rest-stub.mjs"

const require = createRequire(import.meta.url)

/** Every client: how it is created for a server and closed, and whether it is adopted. */
export const CLIENTS = [
  ...["redis-4", "redis-5", "redis"].map((name) => ({
    name,
    open: async (url, options) => {
      const client = require(name).createClient({ url, ...options })
      client.on("error", () => {})
      return client.connect().then(() => client)
    },
    close: (client) => client.disconnect(),
  })),
  {
    name: "redis-4 legacyMode",
    open: async (url) => {
      const client = require("redis-4").createClient({ url, legacyMode: true })
      client.on("error", () => {})
      await client.connect()
      return client
    },
    close: (client) => client.disconnect(),
  },
  {
    name: "redis, not connected",
    open: async (url) => require("redis").createClient({ url }),
    close: () => {},
  },
  ...["redis-2", "redis-3"].map((name) => ({
    name,
    open: async (url) => require(name).createClient(url),
    close: (client) => client.end(false),
  })),
  ...["ioredis-4", "ioredis-5", "ioredis", "iovalkey"].flatMap((name) => {
    const module = require(name)
    const Redis = module.default ?? module
    return [
      { name, open: async (url, options) => new Redis(url, options), close: (client) => client.disconnect() },
      {
        name: `${name}, lazy`,
        open: async (url) => new Redis(url, { lazyConnect: true }),
        close: (client) => client.disconnect(),
      },
    ]
  }),
  ...["redis-5", "redis"].map((name) => ({
    name: `${name} pool`,
    open: (url) =>
      require(name)
        .createClientPool({ url })
        .on("error", () => {})
        .connect(),
    close: (client) => client.destroy(),
  })),
  ...["redis-5", "redis"].map((name) => ({
    name: `${name} legacy()`,
    open: async (url) => {
      const client = await require(name)
        .createClient({ url })
        .on("error", () => {})
        .connect()
      return Object.assign(client.legacy(), { end: () => client.destroy() })
    },
    close: (client) => client.end(),
    native: false,
  })),
  ...["redis-5", "redis"].map((name) => ({
    name: `${name} with credentialsProvider`,
    open: async (url) => {
      const credentialsProvider = { type: "async-credentials-provider", credentials: async () => ({}) }
      return require(name).createClient({ url, credentialsProvider })
    },
    close: () => {},
  })),
  {
    name: "valkey-glide",
    open: (url) => {
      const { hostname, port } = new URL(url)
      const { GlideClient } = require("@valkey/valkey-glide")
      return GlideClient.createClient({
        addresses: [{ host: hostname, port: Number(port) }],
        // Without the native binary, the client sends all requests of a test itself.
        inflightRequestsLimit: 10_000,
      })
    },
    close: (client) => client.close(),
  },
  {
    name: "redis-mock",
    open: async () => require("redis-mock").createClient(),
    close: () => {},
    native: false,
    pttl: (key, client) => new Promise((resolve) => client.pttl(key, (_error, ms) => resolve(ms))),
  },
  {
    name: "ioredis-mock",
    open: async () => new (require("ioredis-mock"))(),
    close: (client) => client.disconnect(),
    native: false,
    pttl: (key, client) => client.pttl(key),
  },
  {
    name: "@upstash/redis",
    open: async (url) => {
      const stub = await startRestStub(url)
      const { Redis } = require("@upstash/redis")
      return Object.assign(new Redis({ url: stub.url, token: "token", enableTelemetry: false }), { stop: stub.stop })
    },
    close: (client) => client.stop(),
    native: false,
  },
  {
    name: "a Proxy around redis-4 that hides its options",
    open: async (url) => {
      const client = require("redis-4").createClient({ url })
      client.on("error", () => {})
      await client.connect()
      const get = (target, name, receiver) => {
        const value = typeof target[name] === "function" ? target[name] : Reflect.get(target, name, receiver)
        return typeof value === "function" ? value.bind(target) : value
      }
      return new Proxy(client, { get })
    },
    close: (client) => client.disconnect(),
    native: false,
  },
  {
    name: "an unknown client that takes callbacks",
    open: async (url) =>
      speaking(await openRedis(url), (command) => (...args) => {
        const done = args.pop()
        command(args).then((reply) => done(null, reply), done)
      }),
    close: (client) => client.end(),
    native: false,
  },
  {
    name: "an unknown client that returns promises",
    open: async (url) =>
      speaking(
        await openRedis(url),
        (command) =>
          (...args) =>
            command(args.filter((arg) => typeof arg !== "function")),
      ),
    close: (client) => client.end(),
    native: false,
  },
]

/** The most common clients; other files test the rest. */
export const COMMON_CLIENTS = CLIENTS.filter(({ name }) => ["redis", "ioredis"].includes(name))
export const OTHER_CLIENTS = CLIENTS.filter((kind) => !COMMON_CLIENTS.includes(kind))

const openRedis = (url) =>
  require("redis")
    .createClient({ url, RESP: 2 })
    .on("error", () => {})
    .connect()

/** An object with Redis's commands only. */
function speaking(client, style) {
  const unknown = { end: () => client.destroy() }
  for (const name of ["get", "set", "expire", "pexpire", "del", "mget", "scan"]) {
    unknown[name] = style((args) => client.sendCommand([name, ...args.flat().map(String)]))
  }
  return unknown
}
