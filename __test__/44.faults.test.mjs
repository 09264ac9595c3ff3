// Every fault under load, with an account of every request. In the long form faults last; `npm run test:faults`
// also holds times to what the README promises.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { RESET, startProxy } from "../testing/proxy.mjs"
import { startLoad } from "../testing/load.mjs"
import { until } from "../testing/until.mjs"
import { findServer, freePort, startServer } from "./support/servers.mjs"

const LONG = Boolean(process.env.LONG_FORM)
const BOUNDED = Boolean(process.env.TIME_BOUNDS)
/** How long a fault lasts: longer than a deadline, so that requests run into it. */
const FAULT_MS = LONG ? 5000 : 800
const commandTimeoutMs = 500
/** Each has two requests at once. */
const USERS = 32
const GRACE_MS = 250
/** Half of the refusals of one store's open circuit take less, for all that USERS ask at once. */
const REFUSED_US = 1000
/** From the end of a fault of one store until every user is served. */
const RECOVERY_MS = 1000

const [CONNECT, TIMEOUT, AUTH, SERVER] = ["CONNECT", "TIMEOUT", "AUTH", "SERVER"].map(
  (name) => `ERR_REDIS_STORE_${name}`,
)

const table = []
after(() => {
  const columns = [
    "fault",
    "in flight",
    "requests",
    "settled once",
    "errors by code",
    "longest, ms",
    "refused in, ms",
    "recovery, ms",
    "lost",
    "crossed",
  ]
  const lines = [columns, columns.map(() => "---"), ...table].map((cells) => `| ${cells.join(" | ")} |`)
  console.log(`\nFaults under load, commandTimeoutMs ${commandTimeoutMs}:\n\n${lines.join("\n")}\n`)
})

/**
 * One fault's account. `codes` are the errors that requests may get, and the first must occur
 * unless `masked` says that all may be retried with success: then the connection must have been
 * lost. `recovers` says whether users are served at the end.
 */
async function injure(
  name,
  stores,
  { inject, codes, masked, recovers = true, users = USERS, deadline = commandTimeoutMs },
) {
  let reconnects = 0
  for (const store of stores) store.on("reconnecting", () => reconnects++)
  const { account, stop, verify } = startLoad(stores, users)
  const allServed = (since) => account.servedAt.every((at) => at > since)
  if (recovers) await until("load", () => allServed(0))
  await inject(account)
  const since = performance.now()
  if (recovers) await until("every user to be served", () => allServed(since), 20_000)
  const recovery = recovers ? Math.round(Math.max(...account.servedAt) - since) : "never"
  await stop()
  if (recovers) await verify()
  const { requests, answers, twice, lost, crossed, longest, refused } = account
  const errors = Object.entries(account.codes).map(([code, count]) => `${code.slice(16)} ${count}`)
  const once = answers === requests && twice === 0
  table.push([
    name,
    users * 2,
    requests,
    once ? "all" : `**${answers} and ${twice} twice**`,
    errors.join(", ") || "none",
    Math.round(longest),
    refused.count > 0 ? (refused.percentile(50) / 1000).toFixed(2) : "",
    recovery,
    lost,
    crossed,
  ])
  assert.deepEqual(account.foreign, [])
  assert.deepEqual({ answers, twice, lost, crossed }, { answers: requests, twice: 0, lost: 0, crossed: 0 })
  const unexpected = Object.keys(account.codes).filter((code) => !codes.includes(code))
  assert.deepEqual(unexpected, [])
  if (masked) assert.ok(reconnects >= stores.length, `${reconnects} connections were lost`)
  else if (codes.length > 0) assert.ok(account.codes[codes[0]] > 0, `${codes[0]} occurred`)
  if (!BOUNDED) return
  assert.ok(longest < deadline + GRACE_MS, `a call took ${longest} ms`)
  // Many stores of one process hear one after the other.
  if (stores.length > 1) return
  const half = refused.count > 0 ? refused.percentile(50) : 0
  assert.ok(half < REFUSED_US, `half of the refusals took more than ${half} us`)
  if (recovers) assert.ok(recovery < RECOVERY_MS, `recovery took ${recovery} ms`)
}

describe("faults of a server", () => {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  // What was acknowledged must be there after a kill, so the server writes it down.
  const args = ["--dir", folder, "--appendonly", "yes", "--appendfsync", "no"]
  let server
  let admin
  before(async () => {
    const { version } = await findServer()
    if (Number.parseInt(version) >= 7) args.push("--enable-debug-command", "yes")
    server = await startServer({ args })
    admin = await createClient({ url: server.url, socket: { reconnectStrategy: 20 } })
      .on("error", () => {})
      .connect()
  })
  after(async () => {
    admin.destroy()
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  const command = (...words) => admin.sendCommand(words.map(String))
  const restart = async (options) => {
    await server.stop()
    await delay(FAULT_MS)
    server = await startServer({ args, port: server.port, ...options })
  }

  const FAULTS = {
    "kill -9, and a restart": { inject: () => restart(), codes: [CONNECT, TIMEOUT] },
    "SIGSTOP, SIGCONT": {
      inject: async () => {
        server.process.kill("SIGSTOP")
        await delay(FAULT_MS)
        server.process.kill("SIGCONT")
      },
      codes: [TIMEOUT, CONNECT],
    },
    "CLIENT PAUSE": {
      inject: async () => {
        await command("CLIENT", "PAUSE", FAULT_MS)
        await delay(FAULT_MS)
      },
      codes: [TIMEOUT, CONNECT],
    },
    "DEBUG SLEEP": { inject: () => command("DEBUG", "SLEEP", FAULT_MS / 1000), codes: [TIMEOUT, CONNECT] },
    "CLIENT KILL, ten times": {
      inject: async () => {
        for (let times = 0; times < 10; times++) {
          await command("CLIENT", "KILL", "TYPE", "normal")
          await delay(FAULT_MS / 10)
        }
      },
      codes: [CONNECT],
      masked: true,
    },
    "LOADING a large data set": {
      inject: async () => {
        await command("CONFIG", "SET", "appendonly", "no")
        await command("DEBUG", "POPULATE", "20000", "ballast", "100")
        await command("CONFIG", "SET", "appendonly", "yes")
        await until("a whole log", async () => (await command("INFO")).includes("aof_rewrite_in_progress:0"))
        const slow = [...args, "--key-load-delay", FAULT_MS / 20, "--loading-process-events-interval-bytes", "1024"]
        await restart({ args: slow, ready: "monotonic clock" })
        await until("the data set", async () => (await command("INFO")).includes("loading:0"), 30_000)
        await command("CONFIG", "SET", "key-load-delay", "0")
      },
      codes: [CONNECT, SERVER, TIMEOUT],
    },
    "OOM: maxmemory with noeviction": {
      inject: async () => {
        await command("CONFIG", "SET", "maxmemory", "1")
        await delay(FAULT_MS)
        await command("CONFIG", "SET", "maxmemory", "0")
      },
      codes: [SERVER],
    },
    "READONLY: the server becomes a replica": {
      inject: async () => {
        await command("REPLICAOF", "127.0.0.1", await freePort())
        await delay(FAULT_MS)
        await command("REPLICAOF", "NO", "ONE")
      },
      // The connection is given up, and a write that is followed by another is not repeated.
      codes: [SERVER, CONNECT],
    },
    "NOAUTH: a password is set in mid-life": {
      inject: async () => {
        await command("CONFIG", "SET", "requirepass", "now there is one")
        await command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await delay(FAULT_MS)
        await command("CONFIG", "SET", "requirepass", "")
      },
      codes: [AUTH, CONNECT],
    },
    "WRONGPASS: the password is changed in mid-life": {
      options: () => ({ username: "app", password: "the first" }),
      inject: async () => {
        await command("ACL", "SETUSER", "app", "resetpass", ">the second")
        await command("CLIENT", "KILL", "USER", "app")
        await delay(FAULT_MS)
        await command("ACL", "SETUSER", "app", "resetpass", ">the first")
      },
      codes: [AUTH, CONNECT],
    },
    "NOPERM: a command is forbidden in mid-life": {
      options: () => ({ username: "app", password: "the first" }),
      inject: async () => {
        await command("ACL", "SETUSER", "app", "-set")
        await delay(FAULT_MS)
        await command("ACL", "SETUSER", "app", "+set")
      },
      codes: [AUTH],
    },
  }
  for (const [name, { options = () => ({}), ...fault }] of Object.entries(FAULTS)) {
    test(name, async () => {
      await command("ACL", "SETUSER", "app", "on", ">the first", "~*", "+@all")
      const store = new RedisStore({ url: server.url, prefix: `${name}:`, commandTimeoutMs, ...options() })
      await injure(name, [store], fault)
      await store.close()
    })
  }

  test("the clock jumps", async () => {
    const store = new RedisStore({ url: server.url, prefix: "clock:", commandTimeoutMs })
    const { now } = Date
    const inject = async () => {
      for (const days of [1, -1, 3650, -3650]) {
        Date.now = () => now() + days * 86_400_000
        await delay(FAULT_MS / 4)
      }
      Date.now = now
    }
    await injure("the clock jumps by days and years", [store], { inject, codes: [] })
    await store.close()
  })

  const MANY = {
    "1,000 stores in one process, and a restart (deadline 2000 ms)": { count: 1000, restarts: 1 },
    "200 clients, and a storm of three restarts (deadline 2000 ms)": { count: 200, restarts: 3 },
  }
  for (const [name, { count, restarts }] of Object.entries(MANY)) {
    test(name, async () => {
      const deadline = 2000
      const open = (_, n) => new RedisStore({ url: server.url, prefix: `${name}${n}:`, commandTimeoutMs: deadline })
      const stores = Array.from({ length: count }, open)
      const inject = async () => {
        for (let times = 0; times < restarts; times++) await restart()
      }
      await injure(name, stores, { inject, codes: [CONNECT, TIMEOUT], masked: true, users: count, deadline })
      await Promise.all(stores.map((store) => store.close()))
    })
  }
})

describe("faults of a network", () => {
  let server
  let proxy
  before(async () => {
    server = await startServer()
    proxy = await startProxy(server.port)
  })
  after(async () => {
    proxy.stop()
    await server.stop()
  })

  /** Lets `replies` at what the server says for as long as a fault lasts. */
  const garbling = (replies) => async () => {
    proxy.replies = replies
    await delay(FAULT_MS)
    proxy.replies = undefined
  }
  let pieces = 0
  const isTenth = () => ++pieces % 10 === 0
  const bytes = (data) => Array.from(data, (_, at) => data.subarray(at, at + 1))

  const FAULTS = {
    "connections are reset, ten times": {
      inject: async () => {
        for (let times = 0; times < 10; times++) {
          proxy.reset()
          await delay(FAULT_MS / 10)
        }
      },
      codes: [CONNECT],
      masked: true,
    },
    "a black hole": {
      inject: async () => {
        proxy.hold()
        await delay(FAULT_MS)
        proxy.release()
      },
      codes: [TIMEOUT, CONNECT],
    },
    "half-open: the server is gone and nothing says so": {
      inject: async () => {
        proxy.halve()
        await delay(FAULT_MS)
      },
      codes: [TIMEOUT, CONNECT],
    },
    "replies are delayed by a fifth of the deadline": {
      inject: garbling(async (data) => {
        await delay(commandTimeoutMs / 5)
        return [data]
      }),
      codes: [],
    },
    "replies come byte by byte": { inject: garbling(bytes), codes: [] },
    "replies are truncated": {
      inject: garbling((data) => (isTenth() ? [data.subarray(0, data.length / 2), RESET] : [data])),
      codes: [CONNECT],
      masked: true,
    },
    "garbage between replies": {
      inject: garbling((data) => (isTenth() ? [data, Buffer.from("\x16\x03\x01 garbage\r\n")] : [data])),
      codes: [CONNECT],
      masked: true,
    },
    "a reply of 512 MB is announced": {
      inject: garbling((data, link) => {
        if (link.announced) return []
        link.announced = true
        return [data, Buffer.from("$536870912\r\nand so on")]
      }),
      codes: [TIMEOUT, CONNECT],
    },
  }
  for (const [name, fault] of Object.entries(FAULTS)) {
    test(name, async () => {
      const store = new RedisStore({ url: proxy.url, prefix: `${name}:`, commandTimeoutMs })
      await injure(name, [store], fault)
      await store.close()
    })
  }

  test("packets are dropped: a frozen server with a full backlog", async (t) => {
    const frozen = await startServer({ args: ["--tcp-backlog", 1] })
    const store = new RedisStore({ url: frozen.url, prefix: `${t.name}:`, commandTimeoutMs })
    const inject = async () => {
      frozen.process.kill("SIGSTOP")
      const sockets = Array.from({ length: 4 }, () => connect(frozen.port, "127.0.0.1"))
      await delay(FAULT_MS)
      assert.ok(
        sockets.some(({ connecting }) => connecting),
        "packets are dropped",
      )
      for (const socket of sockets) socket.destroy()
      frozen.process.kill("SIGCONT")
    }
    await injure(t.name, [store], { inject, codes: [TIMEOUT, CONNECT] })
    await store.close()
    await frozen.stop()
  })
})

describe("what is no Redis", () => {
  /** A server that does with every connection what `talk` says. */
  async function listen(talk, t) {
    const sockets = new Set()
    const server = createServer((socket) => talk(sockets.add(socket.on("error", () => {})) && socket))
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
    t.after(() => {
      server.close()
      for (const socket of sockets) socket.destroy()
    })
    return server.address().port
  }

  const FAULTS = {
    "a server of HTTP": {
      options: async (t) => ({
        url: `redis://127.0.0.1:${await listen((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"), t)}`,
      }),
      codes: [CONNECT],
    },
    "a name that DNS does not know": {
      options: () => ({ url: `redis://${"no-such-label".repeat(6)}.invalid` }),
      codes: [CONNECT],
    },
    "a TLS handshake that stalls": {
      options: async (t) => ({ url: `rediss://127.0.0.1:${await listen(() => {}, t)}` }),
      codes: [CONNECT],
    },
    "a certificate that has expired": {
      options: async (t) => {
        const { args, ca, port } = await expired()
        const server = await startServer({ args })
        t.after(() => server.stop())
        return { url: `rediss://127.0.0.1:${port}`, tls: { ca } }
      },
      codes: [CONNECT],
    },
  }
  for (const [name, { options, codes }] of Object.entries(FAULTS)) {
    test(name, async (t) => {
      const store = new RedisStore({ prefix: `${name}:`, commandTimeoutMs, ...(await options(t)) })
      await injure(name, [store], { inject: () => delay(FAULT_MS), codes, recovers: false })
      await store.close()
    })
  }

  /** A server's certificate of yesteryear, signed by an authority that is trusted. */
  async function expired() {
    const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    const openssl = (...words) => execFileSync("openssl", words, { cwd: folder, stdio: "pipe" })
    openssl(..."req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 1 -subj /CN=authority".split(" "))
    openssl(..."req -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=127.0.0.1".split(" "))
    openssl(..."x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -out crt -days -1".split(" "))
    const port = await freePort()
    const file = (name) => join(folder, name)
    const args = ["--tls-port", port, "--tls-auth-clients", "no", "--tls-cert-file", file("crt")]
    args.push("--tls-key-file", file("key"), "--tls-ca-cert-file", file("ca.crt"))
    after(() => rmSync(folder, { recursive: true, force: true }))
    return { args, port, ca: readFileSync(file("ca.crt"), "utf8") }
  }
})
