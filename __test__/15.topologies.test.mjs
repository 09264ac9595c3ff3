import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { createCluster, createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { lacksTls, makeCertificates, startCluster, startSentinels } from "../testing/topologies.mjs"
import { contract } from "./support/contract.mjs"
import { freePort, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const Ioredis = (name) => require(name).default ?? require(name)
const quiet = (client) => client.on("error", () => {})
/** A busy machine needs more than valkey-glide's deadlines of 250 and 2000 ms. */
const PATIENT = { requestTimeout: 20_000, advancedConfiguration: { connectionTimeout: 20_000 } }

describe("a cluster of three masters and three replicas", () => {
  let cluster
  let looker
  before(async () => {
    // A busy machine must not look like a failed master.
    cluster = await startCluster({ nodeTimeoutMs: 15_000 })
    looker = quiet(createCluster({ rootNodes: cluster.nodes.map((socket) => ({ socket: { ...socket } })) }))
    await looker.connect()
  })
  after(async () => {
    looker.destroy()
    await cluster.stop()
  })
  const pttl = (key) => looker.pTTL(key)
  const rootNodes = () => cluster.nodes.map(({ host, port }) => ({ url: `redis://${host}:${port}` }))

  const SOURCES = {
    "option nodes": () => ({ options: { nodes: cluster.nodes } }),
    "one node of it": () => ({ options: { nodes: [`127.0.0.1:${cluster.replicas[0].port}`] } }),
  }
  for (const name of ["redis-5", "redis"]) {
    SOURCES[`${name} createCluster, not connected`] = () => ({
      options: { client: require(name).createCluster({ rootNodes: rootNodes() }) },
    })
  }
  for (const name of ["redis-4", "redis"]) {
    SOURCES[`${name} createCluster, connected`] = async () => {
      const client = quiet(require(name).createCluster({ rootNodes: rootNodes() }))
      await client.connect()
      return { options: { client }, close: () => (client.destroy ? client.destroy() : client.disconnect()) }
    }
  }
  SOURCES["valkey-glide cluster"] = async () => {
    const { GlideClusterClient } = require("@valkey/valkey-glide")
    const client = await GlideClusterClient.createClient({ addresses: cluster.nodes, ...PATIENT })
    return { options: { client }, close: () => client.close() }
  }
  for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
    SOURCES[`${name} Cluster`] = () => {
      const { Cluster } = Ioredis(name)
      const client = quiet(new Cluster(cluster.nodes, { lazyConnect: true }))
      return { options: { client }, close: () => client.disconnect() }
    }
  }
  for (const [name, source] of Object.entries(SOURCES)) {
    contract(name, { RedisStore, source: async () => source(), pttl, native: true })
  }
  contract("redis-4 createCluster, delegated: not connected when the store was created", {
    RedisStore: class extends RedisStore {
      constructor({ client, ...options }) {
        let connected = false
        const masters = () => (connected ? Reflect.get(Object.getPrototypeOf(client), "masters", client) : [])
        Object.defineProperty(client, "masters", { configurable: true, get: masters })
        super({ client, ...options })
        connected = true
      }
    },
    source: SOURCES["redis-4 createCluster, connected"],
    pttl,
    native: false,
  })
})

describe("a master that three sentinels name", () => {
  const password = "sentinel-secret"
  let group
  let looker
  before(async () => {
    // A busy machine must not look like a failed master.
    group = await startSentinels({ password, downAfterMs: 15_000 })
    looker = quiet(createClient({ url: group.master.url, password }))
    await looker.connect()
  })
  after(async () => {
    looker.destroy()
    await group.stop()
  })
  const pttl = (key) => looker.pTTL(key)
  const dead = { host: "127.0.0.1", port: 1 }

  const SOURCES = {
    "option sentinel": () => ({
      options: { sentinel: { name: group.name, nodes: [dead, ...group.nodes] }, password },
    }),
    "redis createSentinel": () => ({
      options: {
        client: require("redis").createSentinel({
          name: group.name,
          sentinelRootNodes: group.nodes,
          nodeClientOptions: { password },
        }),
      },
    }),
  }
  for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
    SOURCES[`${name} with sentinels`] = () => {
      const Redis = Ioredis(name)
      const client = quiet(new Redis({ sentinels: group.nodes, name: group.name, password, lazyConnect: true }))
      return { options: { client }, close: () => client.disconnect() }
    }
  }
  for (const [name, source] of Object.entries(SOURCES)) {
    contract(name, { RedisStore, source: async () => source(), pttl, native: true })
  }
  contract("redis-5 createSentinel, which does not expose its options: delegated", {
    RedisStore,
    source: async () => {
      const client = quiet(
        require("redis-5").createSentinel({
          name: group.name,
          sentinelRootNodes: group.nodes,
          nodeClientOptions: { password },
        }),
      )
      await client.connect()
      return { options: { client }, close: () => client.destroy() }
    },
    pttl,
    native: false,
  })
  for (const name of ["redis-5", "redis"]) {
    contract(`a lease of ${name} createSentinel, which has no options: delegated`, {
      RedisStore,
      source: async () => {
        const client = quiet(
          require(name).createSentinel({
            name: group.name,
            sentinelRootNodes: group.nodes,
            nodeClientOptions: { password },
            masterPoolSize: 2,
          }),
        )
        await client.connect()
        return { options: { client: await client.acquire() }, close: () => client.destroy() }
      },
      pttl,
      native: false,
    })
  }
})

describe("TLS", { skip: await lacksTls() }, () => {
  let certificates
  const servers = {}
  const lookers = {}
  before(async () => {
    certificates = makeCertificates()
    for (const authClients of ["no", "yes"]) {
      const tlsPort = await freePort()
      const server = await startServer({ args: certificates.args(tlsPort, authClients) })
      servers[authClients] = { ...server, tlsPort }
      lookers[authClients] = await quiet(createClient({ url: server.url })).connect()
    }
  })
  after(async () => {
    for (const looker of Object.values(lookers)) looker.destroy()
    for (const server of Object.values(servers)) await server.stop()
    certificates.remove()
  })
  const url = (authClients, host = "127.0.0.1") => `rediss://${host}:${servers[authClients].tlsPort}`
  const SOURCES = {
    "with the ca of the server": ["no", () => ({ url: url("no"), tls: { ca: certificates.ca } })],
    "with servername": ["no", () => ({ url: url("no"), tls: { ca: certificates.ca, servername: "redis.test" } })],
    "with rejectUnauthorized: false": ["no", () => ({ url: url("no"), tls: { rejectUnauthorized: false } })],
    mutual: [
      "yes",
      () => ({ url: url("yes"), tls: { ca: certificates.ca, cert: certificates.cert, key: certificates.key } }),
    ],
    "redis, adopted": [
      "yes",
      () => {
        const { ca: trusted, cert: chain, key: secret } = certificates
        return { client: createClient({ url: url("yes"), socket: { ca: trusted, cert: chain, key: secret } }) }
      },
    ],
    "ioredis, adopted": [
      "yes",
      () => {
        const { ca: trusted, cert: chain, key: secret } = certificates
        const tls = { ca: Buffer.from(trusted), cert: Buffer.from(chain), key: Buffer.from(secret) }
        const Redis = Ioredis("ioredis")
        return { client: quiet(new Redis(url("yes"), { tls, lazyConnect: true })) }
      },
    ],
  }
  const trusting = () => ({ ca: certificates.ca })
  for (const name of ["ioredis-4", "ioredis-5", "iovalkey"]) {
    SOURCES[`${name} over TLS`] = [
      "no",
      () => ({ client: quiet(new (Ioredis(name))(url("no"), { tls: trusting(), lazyConnect: true })) }),
    ]
  }
  for (const name of ["redis-4", "redis-5"]) {
    SOURCES[`${name} over TLS`] = [
      "no",
      () => ({ client: quiet(require(name).createClient({ url: url("no"), socket: trusting() })) }),
    ]
  }
  for (const name of ["redis-2", "redis-3"]) {
    SOURCES[`${name} over TLS`] = [
      "no",
      () => {
        const client = quiet(require(name).createClient({ url: url("no"), tls: trusting() }))
        return { client, close: () => client.end(true) }
      },
    ]
  }
  SOURCES["redis pool over TLS"] = [
    "no",
    async () => {
      const pool = quiet(require("redis").createClientPool({ url: url("no"), socket: trusting() }))
      await pool.connect()
      return { client: pool, close: () => pool.destroy() }
    },
  ]
  SOURCES["valkey-glide over TLS"] = [
    "no",
    async () => {
      const { GlideClient } = require("@valkey/valkey-glide")
      const client = await GlideClient.createClient({
        addresses: [{ host: "127.0.0.1", port: servers.no.tlsPort }],
        useTLS: true,
        ...PATIENT,
        advancedConfiguration: {
          ...PATIENT.advancedConfiguration,
          tlsAdvancedConfiguration: { rootCertificates: certificates.ca },
        },
      })
      return { client, close: () => client.close() }
    },
  ]
  for (const [name, [authClients, options]] of Object.entries(SOURCES)) {
    contract(name, {
      RedisStore,
      source: async () => {
        const { close, ...made } = await options()
        return { options: made, close }
      },
      pttl: (stored) => lookers[authClients].pTTL(stored),
      native: true,
    })
  }
})

describe("TLS that cannot be trusted", { skip: await lacksTls() }, () => {
  let certificates
  let server
  let url
  before(async () => {
    certificates = makeCertificates()
    const port = await freePort()
    server = await startServer({ args: certificates.args(port, "yes") })
    url = `rediss://127.0.0.1:${port}`
  })
  after(async () => {
    await server.stop()
    certificates.remove()
  })
  const REFUSED = {
    "a certificate that the system does not trust": [() => ({}), "CONNECT", /UnknownIssuer/],
    "a certificate for another name": [
      ({ ca, cert, key }) => ({ ca, cert, key, servername: "other.test" }),
      "CONNECT",
      /not valid for name|NotValidForName/,
    ],
    "no client certificate for a server that requires one": [
      ({ ca }) => ({ ca }),
      "CONNECT",
      /closed|CertificateRequired/i,
    ],
    "a ca that is not PEM": [() => ({ ca: "garbage" }), "OPTIONS", /"tls\.ca" must be certificates in PEM/],
    "a key that is not PEM": [({ cert }) => ({ cert, key: "garbage" }), "OPTIONS", /"tls\.key" must be an unencrypted/],
  }
  for (const [name, [tls, code, pattern]] of Object.entries(REFUSED)) {
    test(name, async () => {
      const store = new RedisStore({ url, tls: tls(certificates), commandTimeoutMs: 2000 })
      const error = await store.get("sid").then(
        () => assert.fail("no error"),
        (thrown) => thrown,
      )
      assert.equal(error.code, `ERR_REDIS_STORE_${code}`)
      assert.match(error.message, pattern)
      await store.close()
    })
  }

  test("the system's roots and NODE_EXTRA_CA_CERTS are trusted by default", async () => {
    const plain = await freePort()
    const open = await startServer({ args: certificates.args(plain) })
    const program = `
      const { RedisStore } = require(${JSON.stringify(require.resolve("../index.js"))})
      new RedisStore({ url: "rediss://localhost:${plain}" }).set("sid", { cookie: {} }).then(console.log, (error) => console.log(error.message))`
    const trusted = join(open.folder, "roots.pem")
    writeFileSync(trusted, certificates.ca)
    for (const variable of ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"]) {
      const env = { ...process.env, [variable]: trusted }
      assert.equal(execFileSync(process.execPath, ["--eval", program], { env, encoding: "utf8" }), "null\n", variable)
    }
    await open.stop()
  })
})

describe("a unix socket", () => {
  let server
  let looker
  before(async () => {
    server = await startServer({ args: ["--unixsocket", "redis.sock"] })
    looker = await quiet(createClient({ url: server.url })).connect()
  })
  after(async () => {
    looker.destroy()
    await server.stop()
  })
  contract("redis+unix://", {
    RedisStore,
    source: async () => ({ options: { url: `redis+unix://${join(server.folder, "redis.sock")}` } }),
    pttl: (key) => looker.pTTL(key),
    native: true,
  })
})
