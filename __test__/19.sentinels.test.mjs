import assert from "node:assert/strict"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { startSentinels } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { freePort, ownPrefix, startServer } from "./support/servers.mjs"

const session = { cookie: {} }
const served = (store) =>
  store.set("probe", session).then(
    () => true,
    () => false,
  )

/** A sentinel that names `port` as the master, and no other sentinels. */
async function startLiar(port) {
  const fake = await startFakeServer(([name, question]) => {
    if (name !== "SENTINEL") return name === "CLIENT" && question === "ID" ? ":1\r\n" : "+OK\r\n"
    return question === "SENTINELS" ? "*0\r\n" : `*2\r\n$9\r\n127.0.0.1\r\n$${String(port).length}\r\n${port}\r\n`
  })
  return { ...fake, port: Number(new URL(fake.url).port) }
}

/** A server that accepts connections and never replies. */
async function startSilent() {
  const sockets = new Set()
  const server = createServer((socket) => sockets.add(socket.on("error", () => {})))
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    port: server.address().port,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

test("a sentinel that answers first with a dead master causes no delay", async () => {
  const group = await startSentinels()
  const silent = await startSilent()
  const liars = await Promise.all([silent.port, await freePort()].map(startLiar))
  for (const liar of liars) {
    const nodes = [{ port: liar.port }, ...group.nodes]
    const store = new RedisStore({ sentinel: { name: group.name, nodes }, prefix: ownPrefix() })
    assert.equal(await store.set("sid", session), null)
    await store.close()
  }
  for (const { stop } of [...liars, silent]) stop()
  await group.stop()
})

test("a master that is named while another one is being opened is found", async () => {
  const silent = await startSilent()
  const server = await startServer()
  let named = silent.port
  const fake = await startFakeServer(([name, question]) => {
    if (name !== "SENTINEL") return name === "CLIENT" && question === "ID" ? ":1\r\n" : "+OK\r\n"
    return question === "SENTINELS" ? "*0\r\n" : `*2\r\n$9\r\n127.0.0.1\r\n$${String(named).length}\r\n${named}\r\n`
  })
  const store = new RedisStore({
    sentinel: { name: "mymaster", nodes: [{ port: Number(new URL(fake.url).port) }] },
    prefix: ownPrefix(),
    connectTimeoutMs: 60_000,
    commandTimeoutMs: 20_000,
  })
  const stored = store.set("sid", session)
  named = server.port
  assert.equal(await stored, null)
  await store.close()
  silent.stop()
  fake.stop()
  await server.stop()
})

test("the error names a dead sentinel, and one that does not know the master", async () => {
  const dead = await freePort()
  const fake = await startFakeServer(([name, question]) => {
    if (name === "SENTINEL") return "*-1\r\n"
    return name === "CLIENT" && question === "ID" ? ":1\r\n" : "+OK\r\n"
  })
  const { port } = new URL(fake.url)
  const nodes = [{ port: dead }, { port: Number(port) }]
  const store = new RedisStore({ sentinel: { name: "unknown", nodes }, commandTimeoutMs: 500 })
  const error = await store.get("sid").then(
    () => assert.fail("no error"),
    (thrown) => thrown,
  )
  assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
  assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${dead}`))
  assert.match(error.message, new RegExp(`sentinel at 127\\.0\\.0\\.1:${port} knows no master "unknown"`))
  await store.close()
  fake.stop()
})

test("the store does not use the master of an isolated sentinel", async () => {
  const [cutOff, agreed] = [await startServer(), await startServer()]
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const sentinels = []
  for (const [at, { port }] of [cutOff, agreed, agreed].entries()) {
    const file = join(folder, `sentinel-${at}.conf`)
    writeFileSync(file, `sentinel monitor mymaster 127.0.0.1 ${port} 2\n`)
    sentinels.push(await startServer({ config: file, args: ["--sentinel"], ready: "Sentinel ID" }))
  }
  const clients = []
  for (const { url } of [cutOff, agreed]) clients.push(await createClient({ url }).connect())
  const received = async (client) => Number(/total_connections_received:(\d+)/.exec(await client.info("stats"))[1])
  for (const order of [sentinels, sentinels.toReversed()]) {
    const nodes = order.map(({ port }) => ({ port }))
    const store = new RedisStore({ sentinel: { name: "mymaster", nodes }, prefix: ownPrefix() })
    assert.equal(await store.set("first", session), null)
    let n = 0
    await until("a write to the master that most sentinels name", async () => {
      const sid = `sid${++n}`
      await store.set(sid, session)
      return (await clients[1].exists(store.prefix + sid)) === 1
    })
    // The sentinels are asked once a second: here, all of them several times.
    const before = await received(clients[1])
    const asked = await connectionsOf(sentinels)
    await until("the sentinels to be asked again", async () => {
      assert.equal(await store.set("sid", session), null)
      assert.equal(await clients[1].exists(`${store.prefix}sid`), 1)
      await clients[1].del(`${store.prefix}sid`)
      return (await connectionsOf(sentinels)) >= asked + 12
    })
    assert.equal(await received(clients[1]), before)
    await store.close()
  }
  for (const client of clients) client.destroy()
  for (const server of [...sentinels, cutOff, agreed]) await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** The number of connections that these servers have accepted. */
async function connectionsOf(servers) {
  let sum = 0
  for (const { url } of servers) {
    const client = await createClient({ url, RESP: 2 }).connect()
    sum += Number(/total_connections_received:(\d+)/.exec(await client.sendCommand(["INFO", "stats"]))[1]) - 1
    client.destroy()
  }
  return sum
}

describe("sentinels that are replaced one by one", () => {
  let group
  let store
  before(async () => {
    group = await startSentinels()
    store = new RedisStore({ sentinel: { name: group.name, nodes: group.nodes }, prefix: ownPrefix() })
    assert.equal(await store.set("sid", session), null)
  })
  after(async () => {
    await store.close()
    await group.stop()
  })

  test("the store, which stays connected meanwhile, finds the next master by the new sentinels", async (t) => {
    const old = [...group.sentinels]
    const fresh = []
    for (const sentinel of old) {
      const others = [...old.filter((other) => other.process.signalCode === null && other !== sentinel), ...fresh]
      fresh.push(
        await group.add(
          group.master.port,
          others.map(({ port }) => port),
        ),
      )
      // The store learns the new one when it asks the next time.
      await until("the store to ask", () => isAsked(sentinel), 20_000)
      await sentinel.stop()
    }
    const asked = await createClient({ url: fresh[0].url, RESP: 2 }).connect()
    const master = async () => Number((await asked.sendCommand(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", group.name]))[1])
    const before = await master()
    process.kill(group.master.pid, "SIGKILL")
    await until("a new master", async () => (await master()) !== before, 30_000)
    const since = performance.now()
    await until("service", () => served(store))
    t.diagnostic(`service ${Math.round(performance.now() - since)} ms after the promotion`)
    asked.destroy()
  })

  const connections = new Map()
  /** Whether a sentinel has received another command since this function last asked it. */
  async function isAsked({ url }) {
    const looker = await createClient({ url, RESP: 2 }).connect()
    const stats = await looker.sendCommand(["INFO", "stats"])
    looker.destroy()
    const count = Number(/total_connections_received:(\d+)/.exec(stats)[1])
    const before = connections.get(url) ?? count
    connections.set(url, count)
    return count - before > 1
  }
})

describe("a master that is frozen", () => {
  test("is replaced by the new master", async (t) => {
    const group = await startSentinels({ downAfterMs: 3000 })
    const store = new RedisStore({ sentinel: { name: group.name, nodes: group.nodes }, prefix: ownPrefix() })
    assert.equal(await store.set("sid", session), null)
    const before = await group.masterPort()
    let servedAt
    let isRunning = true
    const running = (async () => {
      while (isRunning) if (await served(store)) servedAt = performance.now()
    })()
    process.kill(group.master.pid, "SIGSTOP")
    const frozenAt = performance.now()
    await until("a new master", async () => (await group.masterPort()) !== before, 30_000)
    const since = performance.now()
    await until("service", () => servedAt > since || servedAt > frozenAt + 3000, 20_000)
    t.diagnostic(
      `service ${Math.round(servedAt - since)} ms after the promotion, ${Math.round(since - frozenAt)} ms after the freeze`,
    )
    isRunning = false
    await running
    assert.equal(await store.set("sid", session), null)
    await store.close()
    process.kill(group.master.pid, "SIGCONT")
    await group.stop()
  })
})
