import { createRequire } from "node:module"

import { RedisStore } from "../index.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { contract } from "./support/contract.mjs"
import { ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const pttl = (key) => server.client.pTTL(key)

const adopting = (kind) => async () => {
  const client = await kind.open(server.url)
  return { options: { client }, close: () => kind.close(client) }
}

contract("connect-redis 10 with redis 6", {
  RedisStore: require("connect-redis").RedisStore,
  source: adopting(CLIENTS.find(({ name }) => name === "redis")),
  pttl,
})
contract("url", { RedisStore, source: async () => ({ options: { url: server.url } }), pttl, native: true })
for (const kind of CLIENTS) {
  contract(kind.name, { RedisStore, source: adopting(kind), pttl: kind.pttl ?? pttl, native: kind.native ?? true })
}
