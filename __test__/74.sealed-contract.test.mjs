// The contract once more, with sessions that are sealed: every option at once, a cluster, clients that are delegated to.
import { after, before } from "node:test"

import { createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { CLIENTS, COMMON_CLIENTS } from "./support/clients.mjs"
import { contract } from "./support/contract.mjs"
import { EVERYTHING, SEALED, handleOf } from "./support/sealed.mjs"
import { ownServer } from "./support/servers.mjs"

const server = ownServer()
const pttl = (key) => server.client.pTTL(key)
const shared = { RedisStore, handleOf }
const byUrl = async () => ({ options: { url: server.url } })

contract("url, sealed", { ...shared, source: byUrl, pttl, native: true, always: SEALED })
contract("url, sealed, with every option", { ...shared, source: byUrl, pttl, native: true, always: EVERYTHING })
contract("url, sealed, on the way to hashed ids", {
  ...shared,
  source: byUrl,
  pttl,
  native: true,
  always: { ...SEALED, hashIds: "migrate" },
})

/** Every session has a user. */
const WITH_USERS = { userOf: () => "ada", sessionInfo: () => ({ ip: "::1" }) }
contract("url, sealed, with every option and users", {
  ...shared,
  source: byUrl,
  pttl,
  native: true,
  always: { ...EVERYTHING, ...WITH_USERS },
})

const cluster = {}
before(async () => {
  Object.assign(cluster, await startCluster({ replicas: 0 }))
  cluster.client = await createCluster({ rootNodes: cluster.servers.map(({ url }) => ({ url })) }).connect()
})
after(async () => {
  cluster.client.destroy()
  await cluster.stop()
})
for (const [name, always] of [
  ["sealed", SEALED],
  ["sealed, with every option", EVERYTHING],
  ["sealed, with every option and users", { ...EVERYTHING, ...WITH_USERS }],
]) {
  contract(`cluster, ${name}`, {
    ...shared,
    source: async () => ({ options: { nodes: cluster.nodes } }),
    pttl: (key) => cluster.client.pTTL(key),
    native: true,
    always,
  })
}

const delegated = CLIENTS.filter(({ native }) => native === false)
/** An unknown client may give keys a namespace, and one of the mocks has no scripts. */
const runsScripts = ({ name }) => !/^an unknown client|^a Proxy|mock$/.test(name)
for (const { name, open, close } of delegated.filter(runsScripts)) {
  contract(`${name}, sealed, with users`, {
    ...shared,
    source: async () => {
      const client = await open(server.url)
      return { options: { client }, close: () => close(client) }
    },
    pttl,
    native: false,
    always: { ...SEALED, ...WITH_USERS },
  })
}
for (const { name, open, close, pttl: asked = pttl, native = true } of [...COMMON_CLIENTS, ...delegated]) {
  contract(`${name}, sealed`, {
    ...shared,
    source: async () => {
      const client = await open(server.url)
      return { options: { client }, close: () => close(client) }
    },
    pttl: asked,
    native,
    always: SEALED,
  })
}
