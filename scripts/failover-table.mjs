// Prints how long a store, ioredis and redis take to serve again after each kind of failover, and what they lose, as a table
// for docs/topologies.md. All three are under load at the same time.
import { createRequire } from "node:module"
import { setTimeout as delay } from "node:timers/promises"

import { createClient, createCluster, createSentinel } from "redis"

import { RedisStore } from "../index.mjs"
import { startForwarder } from "../testing/forwarder.mjs"
import { startServer } from "../testing/redis-server.mjs"
import { startCluster, startSentinels } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"

const Redis = createRequire(import.meta.url)("ioredis")
const NAMES = ["this package", "ioredis 6", "redis 6"]
const WORKERS = 8
const PACE_MS = 5
const PATIENCE_MS = 30_000
const quiet = (client) => client.on("error", () => {})

const lookAt = (url) => quiet(createClient({ url })).connect()

/** What is under load: `set(key, value)` and `close()`. */
function storeOf(options) {
  const store = quiet(new RedisStore({ ...options, prefix: "" }))
  return { set: (key, n) => store.set(key, { cookie: {}, n }), close: () => store.close() }
}

function ioredisOf(client) {
  quiet(client)
  return { set: (key, n) => client.set(key, JSON.stringify({ n })), close: () => client.disconnect() }
}

async function redisOf(client) {
  await quiet(client).connect()
  return { set: (key, n) => client.set(key, JSON.stringify({ n })), close: () => client.destroy() }
}

/** Writes until it is stopped; knows every failure, and the last value of each key that was acknowledged. */
function startLoad(name, target) {
  const load = { failed: 0, successes: [], acknowledged: new Map() }
  let isRunning = true
  const work = async (worker) => {
    for (let n = 1; isRunning; n++) {
      const key = `${name.replace(" ", "-")}:${worker}:${n}`
      try {
        await target.set(key, n)
        load.successes.push({ at: performance.now(), worker, key })
        load.acknowledged.set(key, n)
      } catch {
        load.failed++
      }
      await delay(PACE_MS)
    }
  }
  const working = Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)))
  return Object.assign(load, {
    stop: async () => {
      isRunning = false
      // A client may wait for ever.
      await Promise.race([working, delay(3000)])
      await target.close()
    },
  })
}

/** The keys that `servers` have executed a SET of. */
async function watchWrites(servers) {
  const keys = new Set()
  const watchers = await Promise.all(servers.map(({ url }) => lookAt(url)))
  for (const watcher of watchers) {
    await watcher.monitor((line) => {
      const key = /"set" "([^"]+)"/i.exec(line)?.[1]
      if (key !== undefined) keys.add(key)
    })
  }
  return { keys, stop: () => watchers.forEach((watcher) => watcher.destroy()) }
}

/** One row: loads all three, injects, and measures from the promotion on. */
async function measure(kind, targets, servers, inject, reader) {
  const writes = await watchWrites(servers)
  const loads = targets.map((target, at) => startLoad(NAMES[at], target))
  await until("load", () => loads.every(({ successes }) => successes.length > 100), PATIENCE_MS)
  const promotedAt = await inject()
  const served = (load) => {
    const first = new Map()
    for (const { at, worker } of load.successes) if (at > promotedAt && !first.has(worker)) first.set(worker, at)
    return first.size === WORKERS ? Math.round(Math.max(...first.values()) - promotedAt) : undefined
  }
  await until("service", () => loads.every((load) => served(load) !== undefined), PATIENCE_MS).catch(() => {})
  // The old primary may take writes until it is demoted.
  await delay(3000)
  await Promise.all(loads.map(({ stop }) => stop()))
  const times = await Promise.all(loads.map((load) => servedBy(load, promotedAt, reader)))
  const cells = []
  for (const [at, load] of loads.entries()) {
    // A server that was restarted is empty.
    let lost = reader === undefined ? "-" : 0
    let unwritten = 0
    for (const key of load.acknowledged.keys()) {
      const isStored = reader !== undefined && (await reader(key)) !== null
      if (reader !== undefined && !isStored) lost++
      if (!isStored && !writes.keys.has(key)) unwritten++
    }
    cells.push(`${times[at] === undefined ? "never" : `${times[at]} ms`} / ${load.failed} / ${lost} / ${unwritten}`)
  }
  writes.stop()
  console.log(`| ${kind} | ${cells.join(" | ")} |`)
}

/** Milliseconds from the promotion until every worker had written to the new primary. */
async function servedBy({ successes }, promotedAt, reader) {
  const first = new Map()
  for (const { at, worker, key } of successes) {
    if (at <= promotedAt || first.has(worker)) continue
    if (reader === undefined || (await reader(key)) !== null) first.set(worker, at)
  }
  return first.size === WORKERS ? Math.round(Math.max(...first.values()) - promotedAt) : undefined
}

async function plainRows() {
  const one = async (at) => [
    storeOf({ url: `redis://127.0.0.1:${at}` }),
    ioredisOf(new Redis({ port: at, host: "127.0.0.1" })),
    await redisOf(createClient({ socket: { host: "127.0.0.1", port: at } })),
  ]
  const pair = [await startServer(), await startServer()]
  const clients = await Promise.all(pair.map(({ url }) => lookAt(url)))
  await clients[1].sendCommand(["REPLICAOF", "127.0.0.1", String(pair[0].port)])
  await until("replication", async () => (await clients[1].info("replication")).includes("master_link_status:up"))
  const forwarder = await startForwarder(pair[0].port)
  await measure(
    "a name moves to the new primary, the old one becomes a replica",
    await one(forwarder.port),
    pair,
    async () => {
      await clients[1].sendCommand(["REPLICAOF", "NO", "ONE"])
      await clients[0].sendCommand(["REPLICAOF", "127.0.0.1", String(pair[1].port)])
      forwarder.move(pair[1].port)
      return performance.now()
    },
    (key) => clients[1].get(key),
  )
  forwarder.stop()
  for (const client of clients) client.destroy()
  await Promise.all(pair.map(({ stop }) => stop()))
  const holder = { server: await startServer() }
  const { port } = holder.server
  await measure(
    "a restart (empty, after 1 s)",
    await one(port),
    [holder.server],
    async () => {
      await holder.server.stop()
      await delay(1000)
      holder.server = await startServer({ port })
      return performance.now()
    },
    undefined,
  )
  await holder.server.stop()
}

async function sentinelRow(kind, inject, downAfterMs) {
  const group = await startSentinels({ downAfterMs: downAfterMs ?? 1000 })
  const sentinels = group.nodes
  const targets = [
    storeOf({ sentinel: { name: group.name, nodes: sentinels } }),
    ioredisOf(new Redis({ sentinels, name: group.name })),
    await redisOf(createSentinel({ name: group.name, sentinelRootNodes: sentinels, nodeClientOptions: {} })),
  ]
  let looker
  const open = async () => {
    // A busy machine may see a second failover. The sentinel that is asked may have been replaced.
    const named = group.masterPort().catch(() => group.promoted)
    const last = await Promise.race([named, delay(1000).then(() => group.promoted)])
    return lookAt([group.master, ...group.replicas].find(({ port }) => port === last).url)
  }
  await measure(
    kind,
    targets,
    [group.master, ...group.replicas],
    () => inject(group),
    async (key) => {
      looker ??= open()
      return (await looker).get(key)
    },
  )
  ;(await looker)?.destroy()
  group.master.process.kill("SIGCONT")
  await group.stop()
}

/** Waits for the promotion as the servers themselves tell it, be the sentinels as they may. */
async function promoted(group) {
  const lookers = await Promise.all(group.replicas.map(({ url }) => lookAt(url)))
  let at
  await until(
    "a promotion",
    async () => {
      for (const [n, looker] of lookers.entries()) {
        // A sentinel ends the connections of a server whose role it changes.
        const replication = await looker.info("replication").catch(() => "")
        if (!replication.includes("role:master")) continue
        at ??= performance.now()
        group.promoted = group.replicas[n].port
        return true
      }
      return false
    },
    PATIENCE_MS,
  )
  for (const looker of lookers) looker.destroy()
  return at
}

async function clusterRow(kind, inject) {
  const cluster = await startCluster()
  const targets = [
    storeOf({ nodes: cluster.nodes }),
    ioredisOf(new Redis.Cluster(cluster.nodes)),
    await redisOf(createCluster({ rootNodes: cluster.nodes.map((socket) => ({ socket: { ...socket } })) })),
  ]
  const [replica] = cluster.replicas
  let reader
  await measure(
    kind,
    targets,
    cluster.servers,
    async () => {
      await inject(cluster, replica)
      const isMaster = async () => String((await cluster.command(replica.port, "ROLE"))[0]).includes("master")
      await until("a promotion", isMaster, PATIENCE_MS)
      return performance.now()
    },
    (key) => {
      // Opened now: an earlier one would wait for a frozen master.
      reader ??= quiet(new Redis.Cluster([{ host: "127.0.0.1", port: cluster.masters[1].port }]))
      return reader.get(key)
    },
  )
  reader?.disconnect()
  cluster.masters[0].process.kill("SIGCONT")
  await cluster.stop()
}

// The sentinel client of redis 6 throws when its servers are stopped, after its row is measured.
process.on("uncaughtException", (error) => {
  if (!/closed|ECONNRESET/i.test(error.message)) throw error
})
console.log(`| failover | ${NAMES.join(" | ")} |`)
console.log("| --- | --- | --- | --- |")
await plainRows()
const kill = (signal) => async (group) => {
  process.kill(group.master.pid, signal)
  return promoted(group)
}
await sentinelRow("sentinel, by command", async (group) => {
  const waiting = promoted(group)
  await group.ask("FAILOVER", group.name)
  return waiting
})
await sentinelRow("sentinel, the master is killed", kill("SIGKILL"))
await sentinelRow("sentinel, the master is frozen", kill("SIGSTOP"), 3000)
await sentinelRow("all sentinels are replaced, then the master is killed", async (group) => {
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
    // As fast as an operator may be.
    await delay(6000)
    await sentinel.stop()
  }
  return kill("SIGKILL")(group)
})
await clusterRow("cluster, by command", (cluster, replica) => cluster.command(replica.port, "CLUSTER", "FAILOVER"))
await clusterRow("cluster, a master is killed", (cluster) => process.kill(cluster.masters[0].pid, "SIGKILL"))
await clusterRow("cluster, a master is frozen", (cluster) => process.kill(cluster.masters[0].pid, "SIGSTOP"))
process.exit()
