// The sessions of a user by the commands of every client.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import { createClient, createCluster } from "redis"

import { startCluster } from "../testing/topologies.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { RedisStore } from "./support/delegated.mjs"
import { holdsForUsers, indexKeys, userOf } from "./support/users.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const commandTimeoutMs = 20_000

/** The others have no scripts, or do not use the server. */
const IS_OF_A_SERVER = ({ pttl }) => pttl === undefined

/** Unknown clients do not get scripts, because they may put keys into a namespace. */
const RUNS_SCRIPTS = ({ name }) => !/^an unknown client|^a Proxy/.test(name)

describe("without the native binary", () => {
  for (const kind of CLIENTS.filter(IS_OF_A_SERVER)) {
    test(kind.name, async () => {
      const client = await kind.open(server.url)
      const isClosed = /not connected|credentialsProvider/.test(kind.name)
      if (isClosed) await client.on("error", () => {}).connect()
      const options = { client, prefix: ownPrefix(), userOf, commandTimeoutMs }
      if (!RUNS_SCRIPTS(kind)) {
        assert.throws(() => new RedisStore(options), {
          code: "ERR_REDIS_STORE_OPTIONS",
          message: /eval\(\) and pttl\(\)/,
        })
      } else {
        for (const extra of [{}, { userPrefix: `${options.prefix}users:` }]) {
          const store = new RedisStore({ ...options, ...extra })
          assert.equal(store.native, false)
          await holdsForUsers(store, {
            evict: (key) => server.client.del(key),
            count: async () => (await indexKeys(server.client, extra.userPrefix ?? `users:${store.prefix}`)).length,
          })
          await store.close()
        }
      }
      await (isClosed ? (client.close?.() ?? client.disconnect()) : kind.close(client))
    })
  }

  test("clients of a cluster", async () => {
    const cluster = await startCluster({ replicas: 0 })
    const looker = await createCluster({ rootNodes: cluster.masters.map(({ url }) => ({ url })) }).connect()
    const each = await Promise.all(cluster.masters.map(({ url }) => createClient({ url }).connect()))
    const count = async (userPrefix) => (await Promise.all(each.map((one) => indexKeys(one, userPrefix)))).flat().length
    const Redis = require("ioredis").default
    const clients = [
      await createCluster({ rootNodes: cluster.masters.map(({ url }) => ({ url })) }).connect(),
      new Redis.Cluster(cluster.nodes),
      new Redis.Cluster(cluster.nodes, { keyPrefix: "own:" }),
    ]
    for (const client of clients) {
      const own = client.options?.keyPrefix ?? ""
      const store = new RedisStore({ client, prefix: ownPrefix(), userOf, commandTimeoutMs })
      await holdsForUsers(store, {
        evict: (key) => looker.del(own + key),
        count: () => count(`${own}users:${store.prefix}`),
      })
      await store.close()
      await (client.disconnect ?? client.destroy).call(client)
    }
    for (const client of [looker, ...each]) client.destroy()
    await cluster.stop()
  })
})
