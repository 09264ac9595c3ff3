import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { createClient } from "redis"

import { startServer } from "./redis-server.mjs"
import { until } from "./until.mjs"

const SLOTS = 16384

/** A working cluster of three masters and three replicas. `command(port, ...)` runs a command on one of them. */
export async function startCluster({ replicas = 3, nodeTimeoutMs = 1000 } = {}) {
  const timeout = ["--cluster-node-timeout", String(nodeTimeoutMs)]
  const args = ["--cluster-enabled", "yes", ...timeout, "--cluster-replica-validity-factor", "0"]
  const servers = await Promise.all(Array.from({ length: 3 + replicas }, () => startServer({ args })))
  const clients = new Map()
  for (const { port, url } of servers) {
    clients.set(
      port,
      await createClient({ url, socket: { reconnectStrategy: 50 } })
        .on("error", () => {})
        .connect(),
    )
  }
  const command = (port, ...words) => clients.get(port).sendCommand(words.map(String))
  const [first] = servers
  const masters = servers.slice(0, 3)
  for (const [at, { port }] of masters.entries()) {
    const [from, to] = [Math.ceil((at * SLOTS) / 3), Math.ceil(((at + 1) * SLOTS) / 3) - 1]
    await command(port, "CLUSTER", "ADDSLOTS", ...Array.from({ length: to - from + 1 }, (_, n) => from + n))
    await command(port, "CLUSTER", "SET-CONFIG-EPOCH", at + 1)
  }
  for (const { port } of servers.slice(1)) await command(port, "CLUSTER", "MEET", "127.0.0.1", first.port)
  const known = (text) => text.trim().split("\n").length === servers.length
  for (const { port } of servers) {
    await until("the nodes to meet", async () => known(await command(port, "CLUSTER", "NODES")), 20_000)
  }
  for (const [at, { port }] of servers.slice(3).entries()) {
    await command(port, "CLUSTER", "REPLICATE", await command(masters[at].port, "CLUSTER", "MYID"))
  }
  for (const { port } of servers) {
    await until(
      "a working cluster",
      async () => (await command(port, "CLUSTER", "INFO")).includes("cluster_state:ok"),
      20_000,
    )
  }
  for (const { port } of servers.slice(3)) {
    await until(
      "replication",
      async () => (await command(port, "INFO", "replication")).includes("master_link_status:up"),
      20_000,
    )
  }
  // The nodes tell each other with delay which of them are replicas; valkey-glide fails while they differ.
  const map = async ({ port }) => JSON.stringify((await command(port, "CLUSTER", "SLOTS")).map(nodesOfRange).sort())
  await until("the nodes to agree", async () => new Set(await Promise.all(servers.map(map))).size === 1, 60_000)
  return {
    servers,
    masters,
    replicas: servers.slice(3),
    nodes: masters.map(({ port }) => ({ host: "127.0.0.1", port })),
    command,
    stop: async () => {
      for (const client of clients.values()) client.destroy()
      await Promise.all(servers.map((server) => server.stop()))
    },
  }
}

/** One range of CLUSTER SLOTS: its bounds and its master, then its replicas in an order that every node tells alike. */
function nodesOfRange([from, to, master, ...replicas]) {
  return [from, to, master[1], ...replicas.map(([, port]) => port).sort()].join()
}

/** One server with every slot of a cluster. */
export async function startWholeCluster() {
  const server = await startServer({ args: ["--cluster-enabled", "yes"] })
  const client = await createClient({ url: server.url, RESP: 2 }).connect()
  await client.sendCommand(["CLUSTER", "ADDSLOTSRANGE", "0", String(SLOTS - 1)])
  const works = async () => (await client.sendCommand(["CLUSTER", "INFO"])).includes("cluster_state:ok")
  await until("a working cluster", works)
  client.destroy()
  return server
}

/** Three sentinels over a master and two replicas. */
export async function startSentinels({ name = "mymaster", password, downAfterMs = 500 } = {}) {
  const secured = password ? ["--requirepass", password, "--masterauth", password] : []
  const master = await startServer({ args: secured })
  const replicas = await Promise.all(
    [0, 1].map(() => startServer({ args: [...secured, "--replicaof", "127.0.0.1", master.port] })),
  )
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  let started = 0
  const startSentinel = (port) => {
    const file = join(folder, `sentinel-${started++}.conf`)
    const lines = [
      `sentinel monitor ${name} 127.0.0.1 ${port} 2`,
      `sentinel down-after-milliseconds ${name} ${downAfterMs}`,
      `sentinel failover-timeout ${name} 2000`,
      ...(password ? [`sentinel auth-pass ${name} ${password}`] : []),
    ]
    writeFileSync(file, `${lines.join("\n")}\n`)
    return startServer({ config: file, args: ["--sentinel"], ready: "Sentinel ID" })
  }
  const sentinels = await Promise.all([0, 1, 2].map(() => startSentinel(master.port)))
  const client = await createClient({ url: sentinels[0].url, RESP: 2 })
    .on("error", () => {})
    .connect()
  const ask = (...words) => client.sendCommand(["SENTINEL", ...words])
  await until(
    "the sentinels to know the replicas and each other",
    async () => {
      const flat = (await ask("MASTER", name)).map(String)
      const field = (key) => flat[flat.indexOf(key) + 1]
      return field("num-slaves") === "2" && field("num-other-sentinels") === "2" && field("flags") === "master"
    },
    30_000,
  )
  return {
    name,
    master,
    replicas,
    sentinels,
    nodes: sentinels.map(({ port }) => ({ host: "127.0.0.1", port })),
    ask,
    masterPort: async () => Number((await ask("GET-MASTER-ADDR-BY-NAME", name))[1]),
    /** Starts another sentinel, and waits until the sentinels at `ports` know it. */
    add: async (port, ports) => {
      const added = await startSentinel(port)
      sentinels.push(added)
      for (const other of ports) {
        const asked = await createClient({ url: `redis://127.0.0.1:${other}`, RESP: 2 })
          .on("error", () => {})
          .connect()
        const knows = async () =>
          (await asked.sendCommand(["SENTINEL", "SENTINELS", name])).flat().includes(String(added.port))
        await until("a sentinel to be known", knows, 20_000)
        asked.destroy()
      }
      return added
    },
    stop: async () => {
      client.destroy()
      await Promise.all([...sentinels, master, ...replicas].map((server) => server.stop()))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The reason why the tested server does not support TLS; undefined if it does. */
export async function lacksTls() {
  try {
    await (await startServer({ args: ["--tls-port", "0"] })).stop()
  } catch (error) {
    if (/Bad directive/.test(error.message)) return "this server was built without TLS"
    throw error
  }
}

/** A certificate authority, a server's certificate for 127.0.0.1 and localhost, and a client's. */
export function makeCertificates() {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const path = (file) => join(folder, file)
  const openssl = (...args) => execFileSync("openssl", args, { cwd: folder, stdio: "ignore" })
  const key = (name) => openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", `${name}.key`)
  key("ca")
  openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Test CA", "-days", "2", "-out", "ca.crt")
  for (const [name, extensions] of [
    ["server", "subjectAltName=DNS:localhost,DNS:redis.test,IP:127.0.0.1"],
    ["client", "extendedKeyUsage=clientAuth"],
  ]) {
    key(name)
    writeFileSync(path(`${name}.ext`), extensions)
    openssl("req", "-new", "-key", `${name}.key`, "-subj", `/CN=${name}`, "-out", `${name}.csr`)
    const sign = ["x509", "-req", "-in", `${name}.csr`, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl(...sign, "-days", "2", "-extfile", `${name}.ext`, "-out", `${name}.crt`)
  }
  const read = (file) => readFileSync(path(file), "utf8")
  return {
    ca: read("ca.crt"),
    cert: read("client.crt"),
    key: read("client.key"),
    /** Arguments of a server with TLS only, on `port`. */
    args: (port, authClients = "no") => [
      ...["--tls-port", port, "--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key")],
      ...["--tls-ca-cert-file", path("ca.crt"), "--tls-auth-clients", authClients],
    ],
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
