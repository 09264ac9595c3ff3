// Import this before the package to make the native binary fail to load.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { test } from "node:test"

import { contract } from "./contract.mjs"

const require = createRequire(import.meta.url)
export const missing = Object.assign(new TypeError("no binary here."), { code: "ERR_REDIS_STORE_OPTIONS" })
require("../../lib/native/load.js").load = () => {
  throw missing
}
export const { RedisStore } = require("../../index.js")

/** The contract with the commands of each of these clients. */
export function delegatedContract(server, clients) {
  for (const kind of clients) {
    contract(`${kind.name}, delegated`, {
      RedisStore,
      source: async () => {
        const client = await kind.open(server.url)
        return { options: { client }, close: () => kind.close(client) }
      },
      pttl: kind.pttl ?? ((key) => server.client.pTTL(key)),
      native: false,
    })

    test(`${kind.name}, delegated: ping reaches the client`, async () => {
      const client = await kind.open(server.url)
      try {
        const store = new RedisStore({ client })
        // Clients without ping() read a key.
        assert.equal(await store.ping(), "PONG")
        assert.deepEqual(store.stats().commands, { ping: { ok: 1 } })
      } finally {
        await kind.close(client)
      }
    })
  }
}
