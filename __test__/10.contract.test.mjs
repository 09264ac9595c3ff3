import { createRequire } from "node:module"

import { RedisStore } from "../index.mjs"
import { adopting, contractByClient } from "./support/by-client.mjs"
import { CLIENTS, COMMON_CLIENTS } from "./support/clients.mjs"
import { contract } from "./support/contract.mjs"
import { ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const pttl = (key) => server.client.pTTL(key)

contract("connect-redis 10 with redis 6", {
  RedisStore: require("connect-redis").RedisStore,
  source: adopting(
    server,
    CLIENTS.find(({ name }) => name === "redis"),
  ),
  pttl,
})
contract("url", { RedisStore, source: async () => ({ options: { url: server.url } }), pttl, native: true })
contractByClient(server, COMMON_CLIENTS)
