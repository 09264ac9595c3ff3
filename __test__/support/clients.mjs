import { createRequire } from "node:module"

const require = createRequire(import.meta.url)

/** Every client that is adopted: how it is made for a server, and how it is let go. */
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
  ...["ioredis-4", "ioredis-5", "ioredis"].flatMap((name) => {
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
]
