// The contract suite with every client, on the server of REDIS_URL. 81.runtimes.test.mjs starts it in other
// runtimes.
import { after } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../../index.mjs"
import { CLIENTS } from "./clients.mjs"
import { contract } from "./contract.mjs"

const url = process.env.REDIS_URL
const plain = await createClient({ url }).connect()
after(() => plain.close())
const pttl = (key) => plain.pTTL(key)

contract("url", { RedisStore, source: async () => ({ options: { url } }), pttl, native: true })
for (const kind of CLIENTS) {
  const source = async () => {
    const client = await kind.open(url)
    return { options: { client }, close: () => kind.close(client) }
  }
  contract(kind.name, { RedisStore, source, pttl: kind.pttl ?? pttl, native: kind.native ?? true })
}
