import assert from "node:assert/strict"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { createConnection, createServer } from "node:net"
import { networkInterfaces, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { after, before, describe, test } from "node:test"

import { createClient, createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { lacksTls, makeCertificates, startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { freePort, ownPrefix, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { ADOPTED, TABLES } = require("../lib/clients/settings-table.js")
const Redis = require("ioredis")
const withoutTls = await lacksTls()
const session = { cookie: {} }
const quiet = (client) => client.on("error", () => {})

/** Runs a program in a process of its own, where names have the addresses that `hosts` says. */
const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
const hosts = join(folder, "hosts")
writeFileSync(hosts, "::1 both.test\n127.0.0.1 both.test\n127.0.0.1 four.test\n")
const WRAP = ["--map-root-user", "--mount", "sh", "-c", `mount --bind ${hosts} /etc/hosts && exec "$@"`, "sh"]
const hasSix = Object.values(networkInterfaces()).some((list) => list.some(({ address }) => address === "::1"))
const lacks = !hasSix
  ? "there is no IPv6 here"
  : spawnSync("unshare", [...WRAP, "true"]).status !== 0
    ? "no mount namespace is permitted here"
    : undefined
after(() => rmSync(folder, { recursive: true, force: true }))

describe("a name with an IPv4 and an IPv6 address, and another Redis at each", { skip: lacks }, () => {
  const servers = {}
  let port
  before(async () => {
    servers[4] = await startServer()
    port = servers[4].port
    servers[6] = await startServer({ port, args: ["--bind", "::1"] })
  })
  after(() => Promise.all(Object.values(servers).map((server) => server.stop())))

  /** Which of them a store writes to. */
  async function writtenTo(options, flags = []) {
    const prefix = ownPrefix()
    const program = `
      const { RedisStore } = require(${JSON.stringify(require.resolve("../index.js"))})
      const store = new RedisStore({ ...(${options}), prefix: "${prefix}" })
      store.set("sid", { cookie: {} }).then(
        () => process.exit(store.native ? 0 : 3),
        (error) => (console.error(error), process.exit(1)),
      )`
    const args = [...WRAP, process.execPath, ...flags, "--eval", program]
    execFileSync("unshare", args, { cwd: import.meta.dirname, stdio: "pipe" })
    const found = []
    for (const [family, host] of [
      [4, "127.0.0.1"],
      [6, "::1"],
    ]) {
      const looker = await createClient({ socket: { host, port } }).connect()
      if ((await looker.exists(`${prefix}sid`)) === 1) found.push(family)
      looker.destroy()
    }
    assert.equal(found.length, 1)
    return found[0]
  }

  const lazy = (name, options) => {
    const Client = `(require("${name}").default ?? require("${name}"))`
    return `{ client: new ${Client}({ host: "both.test", port: ${port}, lazyConnect: true, ...${options} }) }`
  }
  const CASES = {
    "url, as the system orders them": () => [`{ url: "redis://both.test:${port}" }`, 6],
    "url with ?family=4": () => [`{ url: "redis://both.test:${port}?family=4" }`, 4],
    "url with ?family=6": () => [`{ url: "redis://both.test:${port}/0?family=6" }`, 6],
    "url and --dns-result-order=ipv4first": () => [
      `{ url: "redis://both.test:${port}" }`,
      4,
      ["--dns-result-order=ipv4first"],
    ],
    "an address, which has one family": () => [`{ url: "redis://[::1]:${port}?family=4" }`, 6],
    "ioredis with family: 4": () => [lazy("ioredis", "{ family: 4 }"), 4],
    "ioredis with family: 6": () => [lazy("ioredis", "{ family: 6 }"), 6],
    "ioredis 5 with family as text": () => [lazy("ioredis-5", '{ family: "4" }'), 4],
    "ioredis 4, whose default is 4": () => [lazy("ioredis-4", "{}"), 4],
    "iovalkey, whose default is 4": () => [lazy("iovalkey", "{}"), 4],
    "redis with socket.family: 4": () => [
      `{ client: require("redis").createClient({ socket: { host: "both.test", port: ${port}, family: 4 } }) }`,
      4,
    ],
    "redis 4 with socket.family: 6": () => [
      `{ client: require("redis-4").createClient({ socket: { host: "both.test", port: ${port}, family: 6 } }) }`,
      6,
    ],
    "redis 3, which connects to IPv4 only": () => [
      `{ client: require("redis-3").createClient({ host: "both.test", port: ${port} }) }`,
      4,
    ],
    "redis 2 with family IPv6": () => [
      `{ client: require("redis-2").createClient({ host: "both.test", port: ${port}, family: "IPv6" }) }`,
      6,
    ],
  }
  for (const [name, make] of Object.entries(CASES)) {
    test(name, async () => {
      const [options, wanted, flags] = make()
      assert.equal(await writtenTo(options, flags), wanted)
    })
  }

  test("an address family without an address is an error", () => {
    const program = `
      const { RedisStore } = require(${JSON.stringify(require.resolve("../index.js"))})
      new RedisStore({ url: "redis://four.test:${port}?family=6" }).get("sid").catch((error) => console.log(error.message))`
    const args = [...WRAP, process.execPath, "--eval", program]
    assert.match(execFileSync("unshare", args, { encoding: "utf8" }), /four\.test.*no address of the wanted family/)
  })
})

describe("urls", () => {
  test("valkey://, a database that ends in a slash, and ?family= are accepted", async () => {
    const server = await startServer()
    const looker = await createClient({ url: server.url, database: 1 }).connect()
    for (const [url, database] of [
      [`valkey://127.0.0.1:${server.port}/1`, 1],
      [`redis://127.0.0.1:${server.port}/1/`, 1],
      [`redis://127.0.0.1:${server.port}/?family=4`, 0],
      [`redis://127.0.0.1:${server.port}/1?family=0`, 1],
    ]) {
      const store = new RedisStore({ url, prefix: ownPrefix() })
      await store.set("sid", session)
      await looker.select(database)
      assert.equal(await looker.exists(`${store.prefix}sid`), 1, url)
      await store.close()
    }
    looker.destroy()
    await server.stop()
  })

  test("valkeys:// is TLS", { skip: withoutTls }, async () => {
    const certificates = makeCertificates()
    const port = await freePort()
    const server = await startServer({ args: certificates.args(port) })
    const store = new RedisStore({ url: `valkeys://127.0.0.1:${port}`, tls: { ca: certificates.ca } })
    assert.equal(await store.set("sid", session), null)
    await store.close()
    await server.stop()
    certificates.remove()
  })

  test("a family that is none, and other parameters, are refused", () => {
    for (const [url, message] of [
      ["redis://h?family=5", /must have the family 4, 6 or 0/],
      ["redis://h?family=4&x=1", /has a parameter that is unknown/],
      ["redis://h/1/2", /must end in a database number/],
    ]) {
      assert.throws(() => new RedisStore({ url }), { code: "ERR_REDIS_STORE_OPTIONS", message })
    }
  })
})

/** A cluster whose nodes announce addresses at which nothing answers, and a map of them. */
async function startHiddenCluster() {
  const cluster = await startCluster({ replicas: 0 })
  const nodeAddressMap = {}
  for (const { port } of cluster.masters) {
    const hidden = await freePort()
    await cluster.command(port, "CONFIG", "SET", "cluster-announce-port", hidden)
    nodeAddressMap[`127.0.0.1:${hidden}`] = { host: "127.0.0.1", port }
  }
  const [{ port: first }] = cluster.masters
  const announced = async () => {
    const text = await cluster.command(first, "CLUSTER", "NODES")
    return Object.keys(nodeAddressMap).every((address) => text.includes(address))
  }
  await until("the announced addresses", announced, 20_000)
  return { ...cluster, nodeAddressMap }
}

async function serves(store) {
  const sids = Array.from({ length: 20 }, (_, n) => `s${n}`)
  await Promise.all(sids.map((sid) => store.set(sid, { ...session, sid })))
  const found = await Promise.all(sids.map((sid) => store.get(sid)))
  assert.deepEqual(
    found.map(({ sid }) => sid),
    sids,
  )
}

/** A session that was destroyed stays so, and one that is gone for another reason is saved. */
async function keepsLogouts(store, client) {
  const { prefix } = store
  for (const [sid, remove, isThere] of [
    ["d", () => store.destroy("d"), false],
    ["e", () => client.del(`${prefix}e`), true],
  ]) {
    await store.set(sid, session)
    const loaded = store.createSession({ sessionID: sid, sessionStore: store }, await store.get(sid))
    await remove()
    await store.set(sid, loaded)
    assert.equal((await store.get(sid)) !== null, isThere, sid)
  }
}

describe("addresses that only the client translates", () => {
  let cluster
  before(async () => {
    cluster = await startHiddenCluster()
  })
  after(() => cluster.stop())

  const CLIENTS = {
    "ioredis Cluster with natMap": [
      "ioredisCluster",
      "natMap",
      async () => {
        const client = quiet(new Redis.Cluster(cluster.nodes, { natMap: cluster.nodeAddressMap }))
        await until("ioredis", () => client.status === "ready")
        return [client, () => client.disconnect()]
      },
    ],
    "redis createCluster with nodeAddressMap": [
      "nodeRedisCluster",
      "nodeAddressMap",
      async () => {
        const rootNodes = cluster.nodes.map((socket) => ({ socket: { ...socket } }))
        const client = quiet(createCluster({ rootNodes, nodeAddressMap: cluster.nodeAddressMap }))
        await client.connect()
        return [client, () => client.destroy()]
      },
    ],
  }
  for (const [name, [table, entry, open]] of Object.entries(CLIENTS)) {
    test(`${name}: delegated`, async () => {
      const [client, close] = await open()
      const store = new RedisStore({ client, prefix: ownPrefix() })
      assert.equal(store.native, false)
      await serves(store)
      await store.close()
      close()
    })

    test(`${name}, if the table did not know: served by the client`, async () => {
      const known = TABLES[table][entry]
      TABLES[table][entry] = ADOPTED
      const [client, close] = await open()
      const store = new RedisStore({ client, prefix: ownPrefix() })
      assert.equal(store.native, true)
      // The first request waits until it is known where it goes.
      assert.equal(await store.destroy("none"), null)
      await serves(store)
      await keepsLogouts(store, client)
      assert.equal(store.native, false)
      await store.close()
      close()
      TABLES[table][entry] = known
    })
  }
})

describe("ioredis that connects by itself", () => {
  let server
  before(async () => {
    server = await startServer()
  })
  after(() => server.stop())
  const AbstractConnector = require(
    join(dirname(require.resolve("ioredis/package.json")), "built/connectors/AbstractConnector.js"),
  ).default
  class Connector extends AbstractConnector {
    async connect() {
      this.connecting = true
      this.stream = createConnection({ host: "127.0.0.1", port: server.port })
      return this.stream
    }
  }

  test("with a Connector: delegated", async () => {
    const client = quiet(new Redis({ port: 1, Connector }))
    const store = new RedisStore({ client })
    assert.equal(store.native, false)
    await serves(store)
    await store.close()
    client.disconnect()
  })

  test("with a Connector, if the table did not know: served by the client", async () => {
    const known = TABLES.ioredis.Connector
    TABLES.ioredis.Connector = ADOPTED
    const client = quiet(new Redis({ port: 1, Connector }))
    await until("ioredis", () => client.status === "ready")
    const store = new RedisStore({ client })
    assert.equal(await store.destroy("none"), null)
    await serves(store)
    await keepsLogouts(store, client)
    assert.equal(store.native, false)
    await store.close()
    client.disconnect()
    TABLES.ioredis.Connector = known
  })
})

/** A proxy that hangs up on every command but these, as twemproxy does. */
async function startStrictProxy(port, allowed) {
  const proxy = { connections: 0 }
  const sockets = new Set()
  const server = createServer((client) => {
    proxy.connections++
    const upstream = createConnection({ host: "127.0.0.1", port })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on("error", () => {}).on("close", () => (client.destroy(), upstream.destroy()))
    }
    client.on("data", (data) => {
      const names = [...String(data).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)/g)].map(([, name]) => name.toUpperCase())
      if (names.some((name) => !allowed.includes(name))) client.destroy()
      else upstream.write(data)
    })
    upstream.on("data", (data) => client.write(data))
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return Object.assign(proxy, {
    port: server.address().port,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  })
}

describe("a proxy that hangs up on CLIENT", () => {
  const ALLOWED = ["AUTH", "SELECT", "PING", "GET", "SET", "DEL", "PEXPIRE"]
  let server
  let proxy
  before(async () => {
    server = await startServer({ args: ["--requirepass", "secret"] })
    proxy = await startStrictProxy(server.port, ALLOWED)
  })
  after(async () => {
    proxy.stop()
    await server.stop()
  })

  test("is asked for AUTH, SELECT and PING alone after it hung up", async () => {
    const store = new RedisStore({ url: `redis://:secret@127.0.0.1:${proxy.port}/3` })
    await serves(store)
    assert.equal(proxy.connections, 2)
    await store.close()
  })

  test("is asked for no more at once, by a client with disableClientInfo", async () => {
    for (const client of [
      createClient({
        socket: { host: "127.0.0.1", port: proxy.port },
        password: "secret",
        database: 3,
        disableClientInfo: true,
      }),
      new Redis({
        port: proxy.port,
        host: "127.0.0.1",
        password: "secret",
        disableClientInfo: true,
        lazyConnect: true,
      }),
    ]) {
      proxy.connections = 0
      const store = new RedisStore({ client })
      await serves(store)
      assert.equal(store.native, true)
      assert.equal(proxy.connections, 1)
      await store.close()
    }
  })
})
