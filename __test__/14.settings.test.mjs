import assert from "node:assert/strict"
import { readFileSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { describe, test } from "node:test"
import dns from "node:dns"
import tls from "node:tls"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { propertiesOf } from "./support/option-types.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { TABLES } = require("../lib/clients/settings-table.js")
const { recognise } = require("../lib/clients/adopt.js")
const Ioredis = (name) => require(name).default ?? require(name)
const quiet = (client) => client.on("error", () => {})

/** The types of a client's options, and the table that must have all of them. */
const GLIDE = 'import("@valkey/valkey-glide")'
const ADVANCED = `NonNullable<${GLIDE}.GlideClientConfiguration["advancedConfiguration"]>`
const TYPES = {
  tls: [
    'import("node:tls").ConnectionOptions',
    'import("node:net").TcpNetConnectOpts',
    'import("node:net").IpcNetConnectOpts',
  ],
  net: ['import("node:net").TcpNetConnectOpts', 'import("node:net").IpcNetConnectOpts'],
  nodeRedis: [],
  nodeRedisSocket: [],
  nodeRedisTlsSocket: [],
  nodeRedisCluster: [],
  nodeRedisSentinel: [],
  nodeRedisPool: ['import("redis-5").RedisPoolOptions', 'import("redis").RedisPoolOptions'],
  ioredis: ["ioredis-5", "ioredis", "iovalkey"].map((name) => `import("${name}").RedisOptions`),
  ioredisCluster: ["ioredis-5", "ioredis", "iovalkey"].map((name) => `import("${name}").ClusterOptions`),
  glide: [`${GLIDE}.GlideClientConfiguration`, `${GLIDE}.GlideClusterClientConfiguration`],
  glideAdvanced: [ADVANCED, `NonNullable<${GLIDE}.GlideClusterClientConfiguration["advancedConfiguration"]>`],
  glideTls: [`NonNullable<${ADVANCED}["tlsAdvancedConfiguration"]>`],
  glideCredentials: [`NonNullable<${GLIDE}.GlideClientConfiguration["credentials"]>`],
}
for (const name of ["redis-4", "redis-5", "redis"]) {
  const socket = `NonNullable<import("${name}").RedisClientOptions["socket"]>`
  TYPES.nodeRedis.push(`import("${name}").RedisClientOptions`)
  TYPES.nodeRedisSocket.push(socket)
  TYPES.nodeRedisTlsSocket.push(socket)
  TYPES.nodeRedisCluster.push(`import("${name}").RedisClusterOptions`)
  if (name !== "redis-4") TYPES.nodeRedisSentinel.push(`import("${name}").RedisSentinelOptions`)
}

describe("the table of settings", () => {
  const types = Object.entries(TYPES).flatMap(([table, sources]) => sources.map((type) => [`${table}: ${type}`, type]))
  const properties = propertiesOf(Object.fromEntries(types))
  for (const [name, found] of Object.entries(properties)) {
    test(`knows ${name}`, () => {
      const [table] = name.split(": ")
      assert.ok(found.length > 1)
      assert.deepEqual(
        found.filter((option) => !Object.hasOwn(TABLES[table], option)),
        [],
      )
    })
  }

  test("has every option that redis 2 and 3 read (they have no types)", () => {
    for (const name of ["redis-2", "redis-3"]) {
      const folder = dirname(require.resolve(`${name}/package.json`))
      const files = ["index.js", ...readdirSync(join(folder, "lib")).map((file) => `lib/${file}`)]
      const sources = files.map((file) => readFileSync(join(folder, file), "utf8"))
      const found = new Set(
        sources.flatMap((text) => [...text.matchAll(/\boptions\.(\w+)/g)].map(([, option]) => option)),
      )
      // Properties of commands, not options of the client.
      for (const other of ["error", "queues"]) found.delete(other)
      assert.ok(found.size > 20)
      assert.deepEqual(
        [...found].filter((option) => !Object.hasOwn(TABLES.callbackRedis, option)),
        [],
        name,
      )
    }
  })

  test("has every option of ioredis 4 (it has no types)", () => {
    const { DEFAULT_REDIS_OPTIONS } = require("ioredis-4/built/redis/RedisOptions.js")
    const { DEFAULT_CLUSTER_OPTIONS } = require("ioredis-4/built/cluster/ClusterOptions.js")
    const unknown = (options, table) => Object.keys(options).filter((option) => !Object.hasOwn(table, option))
    assert.deepEqual(unknown(DEFAULT_REDIS_OPTIONS, TABLES.ioredis), [])
    assert.deepEqual(unknown(DEFAULT_CLUSTER_OPTIONS, TABLES.ioredisCluster), [])
  })
})

const PEM = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
const KEY = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"
const LOCKED = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n"
const lookup = (_host, _options, callback) => callback(null, "127.0.0.1", 4)

/** TLS options, and whether a native connection follows them. */
const TLS_OPTIONS = [
  [{ ca: PEM, servername: "redis.test", rejectUnauthorized: true }, true],
  [{ ca: [Buffer.from(PEM)], cert: PEM, key: KEY }, true],
  [{ rejectUnauthorized: false, minVersion: "TLSv1.2", maxVersion: "TLSv1.3" }, true],
  [{ checkServerIdentity: tls.checkServerIdentity, ciphers: tls.DEFAULT_CIPHERS }, true],
  [{ pfx: undefined, passphrase: "", session: undefined, enableTrace: false }, true],
  [{ checkServerIdentity: () => undefined }, false],
  [{ key: LOCKED, passphrase: "secret", cert: PEM }, false],
  [{ key: [{ pem: KEY }], cert: PEM }, false],
  [{ pfx: Buffer.from("x") }, false],
  [{ ciphers: "ECDHE-RSA-AES128-SHA" }, false],
  [{ minVersion: "TLSv1.3" }, false],
  [{ maxVersion: "TLSv1.2" }, false],
  [{ secureContext: tls.createSecureContext() }, false],
  [{ ALPNProtocols: ["redis"] }, false],
  [{ lookup }, false],
  [{ madeUp: true }, false],
]

describe("a client", () => {
  const assertAdopted = (client, adopted, said) => {
    const { settings, why } = recognise(client)
    assert.equal(settings !== undefined, adopted, `${said}: ${why}`)
    if (!adopted) assert.match(why, /its option "\w+" /)
  }

  test("with TLS options is adopted only if a native connection follows them", () => {
    for (const [options, adopted] of TLS_OPTIONS) {
      const said = JSON.stringify(Object.keys(options))
      for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
        const Redis = Ioredis(name)
        assertAdopted(quiet(new Redis({ lazyConnect: true, tls: options })), adopted, `${name} ${said}`)
        const cluster = new Redis.Cluster([{ host: "h" }], { lazyConnect: true, redisOptions: { tls: options } })
        assertAdopted(quiet(cluster), adopted, `${name} cluster ${said}`)
        const sentinels = { sentinels: [{ host: "h" }], name: "m", sentinelTLS: options, lazyConnect: true }
        assertAdopted(quiet(new Redis(sentinels)), adopted, `${name} sentinel ${said}`)
      }
      for (const name of ["redis-4", "redis-5", "redis"]) {
        const { createClient, createCluster } = require(name)
        assertAdopted(createClient({ socket: { tls: true, ...options } }), adopted, `${name} ${said}`)
        if (name === "redis-4") continue
        const defaults = { socket: { tls: true, ...options } }
        assertAdopted(createCluster({ rootNodes: [{}], defaults }), adopted, `${name} cluster ${said}`)
      }
    }
  })

  test("with TLS options that a plain connection does not use is adopted", () => {
    const options = { ciphers: "ECDHE-RSA-AES128-SHA", pfx: Buffer.from("x") }
    for (const name of ["redis-4", "redis-5", "redis"]) {
      assertAdopted(require(name).createClient({ socket: options }), true, name)
    }
  })

  test("that translates, finds or chooses addresses is not adopted", () => {
    class Connector {}
    for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
      const Redis = Ioredis(name)
      const one = (options, adopted) =>
        assertAdopted(quiet(new Redis({ lazyConnect: true, ...options })), adopted, `${name} ${Object.keys(options)}`)
      const sentinels = { sentinels: [{ host: "h" }], name: "m" }
      one({ ...sentinels }, true)
      one({ ...sentinels, natMap: undefined, role: "master" }, true)
      one({ ...sentinels, natMap: { "a:1": { host: "b", port: 1 } } }, false)
      one({ ...sentinels, role: "slave" }, false)
      one({ ...sentinels, Connector }, false)
      one({ ...sentinels, sentinels: [{ host: "h", family: 6 }] }, false)
      one({ Connector }, false)
      one({ readOnly: true }, false)
      one({ path: "/redis.sock", tls: {} }, false)
      one({ tls: { host: "elsewhere" } }, false)
      const cluster = (options, adopted, nodes = [{ host: "h" }]) =>
        assertAdopted(
          quiet(new Redis.Cluster(nodes, { lazyConnect: true, ...options })),
          adopted,
          `${name} cluster ${String(Object.values(options))}`,
        )
      cluster({}, true)
      cluster({ dnsLookup: dns.lookup }, true)
      cluster({ dnsLookup: (address, callback) => callback(null, address) }, true)
      cluster({ dnsLookup: (a, $b) => void $b(null, a) }, false)
      cluster(
        {
          dnsLookup(address, callback) {
            return callback(null, address)
          },
        },
        true,
      )
      cluster({ dnsLookup: (address, callback) => callback(null, address.replace("a", "b")) }, false)
      cluster({ dnsLookup: (_address, callback) => callback(null, "127.0.0.1") }, false)
      cluster({ natMap: { "a:1": { host: "b", port: 1 } } }, false)
      cluster({ useSRVRecords: true }, false)
      cluster({ scaleReads: "slave" }, true)
      cluster({}, false, [{ host: "h", password: "of this node only" }])
    }
    for (const name of ["redis-4", "redis-5", "redis"]) {
      const { createClient } = require(name)
      assertAdopted(createClient({ socket: { family: 4, host: "h" } }), true, name)
      assertAdopted(createClient({ socket: { lookup: dns.lookup } }), true, name)
      assertAdopted(createClient({ socket: { lookup } }), false, name)
      assertAdopted(createClient({ socket: { localAddress: "127.0.0.1" } }), false, name)
      assertAdopted(createClient({ readonly: true }), false, name)
    }
    for (const name of ["redis-5", "redis"]) {
      const { createCluster } = require(name)
      const nodeAddressMap = { "a:1": { host: "b", port: 1 } }
      assertAdopted(createCluster({ rootNodes: [{}], nodeAddressMap }), false, name)
      const streaming = { type: "streaming-credentials-provider", subscribe() {} }
      assertAdopted(require(name).createClient({ credentialsProvider: streaming }), false, name)
    }
  })

  test("of redis 2 or 3 that renames commands is not adopted", () => {
    for (const name of ["redis-2", "redis-3"]) {
      for (const [rename_commands, adopted] of [
        [{}, true],
        [{ SET: "hidden" }, false],
      ]) {
        const client = quiet(require(name).createClient({ host: "127.0.0.1", port: 1, rename_commands }))
        assertAdopted(client, adopted, name)
        client.end(true)
      }
    }
  })

  test("that is not adopted: the error of an option that needs a native connection gives the reason", () => {
    const client = quiet(new (Ioredis("ioredis"))({ lazyConnect: true, tls: { ciphers: "x" } }))
    assert.equal(new RedisStore({ client }).native, false)
    assert.throws(() => new RedisStore({ client, onConflict: "merge" }), {
      code: "ERR_REDIS_STORE_OPTIONS",
      message: /Option "onConflict" needs a native connection\. .*its option "ciphers" chooses ciphers/,
    })
  })
})

describe("a value that a client ignores, or reads in another form", () => {
  const settingsOf = (client) => recognise(client).settings()

  test("of an address", () => {
    for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
      for (const empty of ["", null]) {
        const client = quiet(new (Ioredis(name))({ lazyConnect: true, path: empty, host: empty, port: 7000 }))
        assert.deepEqual(settingsOf(client).nodes, [{ host: "localhost", port: 7000 }], name)
      }
    }
    for (const name of ["redis-4", "redis-5", "redis"]) {
      const client = require(name).createClient({ socket: { path: "", host: "", port: 7000 } })
      assert.deepEqual(settingsOf(client).nodes, [{ host: "localhost", port: 7000 }], name)
    }
  })

  test("of a node of a cluster", () => {
    for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
      for (const [node, host] of [
        ["7000", "127.0.0.1"],
        [7000, "127.0.0.1"],
        ["h:7000", "h"],
        ["//h:7000", "h"],
        ["redis://h:7000?a=b", "h"],
        [{ host: "", port: "7000" }, "127.0.0.1"],
        [{ host: null, port: 7000 }, "127.0.0.1"],
      ]) {
        const client = quiet(new (Ioredis(name).Cluster)([node], { lazyConnect: true }))
        assert.deepEqual(settingsOf(client).nodes, [{ host, port: 7000 }], `${name} ${JSON.stringify(node)}`)
      }
    }
    for (const name of ["redis-5", "redis"]) {
      const client = require(name).createCluster({ rootNodes: [{ url: "redis://h:7000?a=b" }] })
      assert.deepEqual(settingsOf(client).nodes, [{ host: "h", port: 7000 }], name)
    }
  })

  test("of TLS", () => {
    for (const [options, expected] of [
      [{ ca: "", cert: "", key: "" }, {}],
      [{ ca: ["", PEM] }, { ca: [PEM] }],
      [{ ca: new Uint8Array(Buffer.from(PEM)) }, { ca: [PEM] }],
      [{ cert: PEM }, {}],
      [{ key: KEY }, {}],
      [
        { cert: Buffer.from(PEM), key: [KEY] },
        { cert: PEM, key: KEY },
      ],
    ]) {
      const client = quiet(new (Ioredis("ioredis"))({ lazyConnect: true, tls: options }))
      const { ca, cert, key } = settingsOf(client).tls
      assert.deepEqual({ ca, cert, key }, { ca: [], cert: undefined, key: undefined, ...expected })
    }
  })
})

describe("a pool of clients", () => {
  const server = ownServer()
  for (const name of ["redis-5", "redis"]) {
    const openPool = async (socket) => {
      const pool = quiet(require(name).createClientPool({ url: server.url, socket }, { minimum: 1, maximum: 1 }))
      await pool.connect()
      return pool
    }

    test(`of ${name} with an option that a native connection cannot follow is delegated to at once`, async () => {
      const pool = await openPool({ localAddress: "127.0.0.1" })
      const { settings, why } = recognise(pool)
      assert.equal(settings, undefined)
      assert.match(why, /its option "localAddress" /)
      assert.equal(pool.idleClients, 1)
      pool.destroy()
    })

    test(`of ${name} keeps its clients while all are busy, and the store serves`, async () => {
      for (const [socket, native] of [
        [{ localAddress: "127.0.0.1" }, false],
        [{}, true],
      ]) {
        const pool = await openPool(socket)
        let release
        const busy = pool.execute(() => new Promise((resolve) => (release = resolve)))
        const store = new RedisStore({ client: pool, prefix: ownPrefix() })
        const written = store.set("sid", { cookie: {}, n: 1 })
        release()
        await busy
        assert.equal(await written, null)
        await until("the route", () => store.native === native)
        assert.equal((await store.get("sid")).n, 1)
        await until("an idle client", () => pool.idleClients === 1)
        assert.equal(pool.totalClients, 1)
        await store.close()
        pool.destroy()
      }
    })
  }
})

describe("a client with disableClientInfo", () => {
  const server = ownServer()
  for (const name of ["redis-4", "redis-5", "redis"]) {
    test(`of ${name} gets no CLIENT INFO`, async () => {
      const client = quiet(require(name).createClient({ url: server.url, disableClientInfo: true }))
      await client.connect()
      const store = new RedisStore({ client, prefix: ownPrefix() })
      assert.equal(await store.ping(), "PONG")
      assert.equal(store.native, true)
      const stats = await client.sendCommand(["INFO", "commandstats"])
      assert.doesNotMatch(stats, /cmdstat_client\|info/)
      await client.sendCommand(["CONFIG", "RESETSTAT"])
      await store.close()
      client.disconnect()
    })
  }
})

describe("the variable NODE_TLS_REJECT_UNAUTHORIZED", () => {
  const { readTls } = require("../lib/options/tls.js")
  const with0 = (options) => {
    const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"
    try {
      return readTls(options).rejectUnauthorized
    } finally {
      if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
      else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before
    }
  }
  test("counts where the option is not set, as in Node", () => {
    assert.equal(with0({}), false)
    assert.equal(with0({ rejectUnauthorized: true }), true)
    assert.equal(with0({ rejectUnauthorized: undefined }), true)
    assert.equal(readTls({}).rejectUnauthorized, true)
  })
})
