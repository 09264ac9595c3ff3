// No request waits forever: states of servers and of this process in which requests once hung.
import assert from "node:assert/strict"
import { createServer as createTcpServer } from "node:net"
import { createRequire } from "node:module"
import { createServer } from "node:tls"
import { after, before, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { script } from "./support/script.mjs"
import { freePort, ownPrefix, ownServer, startServer } from "./support/servers.mjs"
import { lacksTls, makeCertificates } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"

const require = createRequire(import.meta.url)
const { loadProtocol } = require("../lib/native/protocol.js")

const server = ownServer()
const code = (name) => ({ code: `ERR_REDIS_STORE_${name}` })
const ERROR = "-ERR unknown command\r\n"
const bulk = (text) => `$${text.length}\r\n${text}\r\n`

describe("a server that", () => {
  const fakes = []
  const fake = async (answer) => {
    const started = await startFakeServer(answer)
    fakes.push(started)
    return started
  }
  after(() => {
    for (const { stop } of fakes) stop()
  })

  test("is loading and then does not reply gets a new connection", async () => {
    let silent
    const { url } = await fake((words, connection) => {
      if (words[0] !== "GET") return ERROR
      silent ??= connection
      if (connection !== silent) return bulk('{"cookie":{}}')
      return words[1].endsWith("first") ? "-LOADING Redis is loading\r\n" : ""
    })
    const store = new RedisStore({ url, commandTimeoutMs: 300 })
    const results = await Promise.allSettled([store.get("first"), store.get("second")])
    assert.ok(results.some(({ status }) => status === "rejected"))
    const served = () =>
      store.get("first").then(
        (found) => found !== null,
        () => false,
      )
    await until("a new connection", served)
    assert.equal(await store.close(), null)
  })

  test("replies with an endless array does not delay deadlines", async () => {
    const { url } = await fake((words) => (words[0] === "GET" ? `*1000000000\r\n${":1\r\n".repeat(5_000_000)}` : ERROR))
    const store = new RedisStore({ url, commandTimeoutMs: 300 })
    await assert.rejects(store.get("sid"), code("TIMEOUT"))
    await store.close()
  })

  test("sends extra bytes at login is disconnected before a reply is taken for another one", async () => {
    let connections = 0
    const { url } = await fake((words, connection) => {
      connections = connection
      if (words[0] === "GET") return bulk('{"cookie":{}}')
      return words[0] === "CLIENT" && words[1] === "ID" && connection === 1 ? ":1\r\n:2\r\n" : ERROR
    })
    const store = new RedisStore({ url, commandTimeoutMs: 1000 })
    const get = () => store.get("sid").catch(({ code }) => code)
    await until("a connection without it", async () => (await get())?.cookie !== undefined)
    assert.equal(connections, 2)
    await store.close()
  })

  test("redirects every key to itself is asked a few times", async () => {
    let asked = 0
    const here = await fake((words) => {
      if (words[0] === "CLUSTER" && words[1] === "SLOTS") {
        const port = new URL(here.url).port
        return `*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${bulk("127.0.0.1")}:${port}\r\n`
      }
      if (words[0] !== "GET") return ERROR
      asked++
      return `-MOVED 1 127.0.0.1:${new URL(here.url).port}\r\n`
    })
    const store = new RedisStore({ nodes: [{ port: Number(new URL(here.url).port) }], commandTimeoutMs: 2000 })
    await assert.rejects(store.get("sid"))
    assert.ok(asked > 1 && asked <= 17, `asked ${asked} times`)
    await store.close()
  })

  test("serves half of the slots is asked for its map over the open connection", async () => {
    let connections = 0
    const here = await fake((words, connection) => {
      connections = Math.max(connections, connection)
      const port = new URL(here.url).port
      if (words[0] === "GET") return bulk('{"cookie":{}}')
      return words[1] === "SLOTS" ? `*1\r\n*3\r\n:0\r\n:8191\r\n*2\r\n${bulk("127.0.0.1")}:${port}\r\n` : ERROR
    })
    const store = new RedisStore({ nodes: [{ port: Number(new URL(here.url).port) }], commandTimeoutMs: 500 })
    const found = await Promise.allSettled(Array.from({ length: 40 }, (_, n) => store.get(`s${n}`)))
    const errors = found.filter(({ status }) => status === "rejected").map(({ reason }) => reason)
    assert.ok(errors.length > 0 && errors.length < 40)
    for (const error of errors) {
      assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
      assert.match(error.message, /serves the slot of this key/)
    }
    // One connection for the first map, one for requests; sometimes the configured nodes are asked again.
    assert.ok(connections <= 5, `${connections} connections`)
    await store.close()
  })

  test("names 16,384 masters is not accepted as a cluster", async () => {
    const slot = (number) =>
      `*3\r\n:${number}\r\n:${number}\r\n*2\r\n${bulk(`127.1.${number >> 8}.${number & 255}`)}:7\r\n`
    const map = `*16384\r\n${Array.from({ length: 16384 }, (_, number) => slot(number)).join("")}`
    const here = await fake((words) => (words[0] === "CLUSTER" && words[1] === "SLOTS" ? map : ERROR))
    const store = new RedisStore({ nodes: [{ port: Number(new URL(here.url).port) }], commandTimeoutMs: 500 })
    await assert.rejects(store.get("sid"), { ...code("CONNECT"), message: /more than 1000 masters/ })
    await store.close()
  })

  test("has an endless SCAN does not hang length() and close()", async () => {
    const { url } = await fake((words) => (words[0] === "SCAN" ? `*2\r\n${bulk("7")}*0\r\n` : ERROR))
    const store = new RedisStore({ url, commandTimeoutMs: 300 })
    await assert.rejects(store.length(), code("DECODE"))
    assert.equal(await store.close(), null)
  })
})

test("more requests than may be on the wire are answered though the event loop is blocked", async () => {
  const commandTimeoutMs = 500
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), commandTimeoutMs })
  await store.set("sid", { cookie: {} })
  const all = Promise.allSettled(Array.from({ length: 1500 }, () => store.get("sid")))
  // They are sent in the check phase of this turn.
  await new Promise((resolve) => setImmediate(resolve))
  for (const end = performance.now() + 3 * commandTimeoutMs; performance.now() < end;);
  assert.deepEqual(
    (await all).filter(({ status }) => status === "rejected"),
    [],
  )
  await store.close()
})

test("a get behind a compare-and-set sees its value, also after SCRIPT FLUSH", async () => {
  const prefix = ownPrefix()
  const store = new RedisStore({ url: server.url, prefix, onConflict: "merge" })
  const client = await createClient({ url: server.url }).connect()
  await store.set("sid", { cookie: {}, n: 0 })
  for (let n = 1; n <= 5; n++) {
    const session = store.createSession({ sessionID: "sid", sessionStore: store }, await store.get("sid"))
    session.n = n
    await client.sendCommand(["SCRIPT", "FLUSH"])
    const [, found] = await Promise.all([store.set("sid", session), store.get("sid")])
    assert.equal(found.n, n)
  }
  client.destroy()
  await store.close()
})

test("touches are sent again after a server has come back with older data", async () => {
  let away = await startServer()
  const store = new RedisStore({ url: away.url, touchAfter: 3600, ttl: 7200 })
  await store.set("sid", { cookie: {} })
  await store.touch("sid", { cookie: {} })
  assert.equal(store.stats().commands.pexpire?.spared, 1)
  await away.stop()
  away = await startServer({ port: away.port })
  const client = await createClient({ url: away.url }).connect()
  await client.set("sess:sid", '{"cookie":{}}', { EX: 60 })
  await until("the server", () => store.get("sid").then(Boolean, () => false))
  await store.touch("sid", { cookie: {} })
  assert.ok((await client.ttl("sess:sid")) > 3600)
  client.destroy()
  await store.close()
  await away.stop()
})

test("close() ends attempts to connect: to a server, to nodes of a cluster, and to sentinels", async () => {
  const open = new Set()
  const silent = createTcpServer((socket) => {
    open.add(socket.on("error", () => {}))
    socket.on("close", () => open.delete(socket)).resume()
  })
  await new Promise((resolve) => silent.listen(0, "127.0.0.1", resolve))
  const { port } = silent.address()
  const nodes = [{ host: "127.0.0.1", port }]
  for (const source of [
    { url: `redis://127.0.0.1:${port}` },
    { url: `rediss://127.0.0.1:${port}` },
    { nodes },
    { sentinel: { name: "mymaster", nodes } },
  ]) {
    const store = new RedisStore({ ...source, connectTimeoutMs: 60_000 })
    await until("an attempt", () => open.size > 0)
    await store.close()
    await until(`no connection of ${Object.keys(source)}`, () => open.size === 0)
  }
  silent.close()
})

describe("over TLS", { skip: await lacksTls() }, () => {
  let certificates
  before(() => {
    certificates = makeCertificates()
  })
  after(() => certificates.remove())

  test("an endless reply does not block the event loop", async () => {
    const sockets = new Set()
    const endless = createServer({ cert: certificates.cert, key: certificates.key }, (socket) => {
      sockets.add(socket.on("error", () => {}))
      let isAsked = false
      socket.on("data", (data) => {
        if (String(data).includes("GET")) isAsked = true
        if (!isAsked) return void socket.write(`${ERROR.repeat(String(data).split("*").length - 2)}+PONG\r\n`)
        socket.write("*1000000000\r\n")
        const more = () => {
          while (!socket.destroyed && socket.write(":1\r\n".repeat(10_000)));
        }
        socket.on("drain", more)
        more()
      })
    })
    await new Promise((resolve) => endless.listen(0, "127.0.0.1", resolve))
    const url = `rediss://127.0.0.1:${endless.address().port}`
    const store = new RedisStore({ url, commandTimeoutMs: 500, tls: { rejectUnauthorized: false } })
    await assert.rejects(store.get("sid"), code("TIMEOUT"))
    await store.close()
    for (const socket of sockets) socket.destroy()
    endless.close()
  })

  test("a new connection resumes the TLS session of the former one", async () => {
    const sockets = []
    const reused = []
    const fake = createServer({ cert: certificates.cert, key: certificates.key }, (socket) => {
      sockets.push(socket.on("error", () => {}))
      reused.push(socket.isSessionReused())
      socket.on("data", (data) => {
        const count = String(data).match(/^\*/gm)?.length ?? 0
        socket.write(String(data).includes("GET\r\n") ? "$-1\r\n".repeat(count) : `${ERROR.repeat(count - 1)}+PONG\r\n`)
      })
    })
    await new Promise((resolve) => fake.listen(0, "127.0.0.1", resolve))
    const url = `rediss://127.0.0.1:${fake.address().port}`
    const store = new RedisStore({ url, tls: { rejectUnauthorized: false } })
    assert.equal(await store.get("sid"), null)
    sockets[0].destroy()
    assert.equal(await store.get("sid"), null)
    assert.deepEqual(reused, [false, true])
    await store.close()
    fake.close()
  })

  test("400 sessions of 1 MB are read", async () => {
    const port = await freePort()
    const secure = await startServer({ args: certificates.args(port, "no") })
    const store = new RedisStore({
      url: `rediss://127.0.0.1:${port}`,
      tls: { ca: certificates.ca },
      commandTimeoutMs: 20_000,
    })
    await store.set("sid", { cookie: {}, text: "x".repeat(1_000_000) })
    const found = await Promise.all(Array.from({ length: 400 }, () => store.get("sid").then(({ text }) => text.length)))
    assert.deepEqual(new Set(found), new Set([1_000_000]))
    await store.close()
    await secure.stop()
  })
})

test(
  "a process without free descriptors gets an error that names them, and its store works once there are some",
  { skip: process.platform === "win32" },
  async () => {
    const { printed, errors } = await script(
      `import { closeSync, openSync } from "node:fs"
    const open = []
    try {
      for (;;) open.push(openSync("/dev/null"))
    } catch {}
    // Enough to load the binding, but not to start the I/O thread.
    closeSync(open.pop())
    const store = new RedisStore({ url: "${server.url}", commandTimeoutMs: 300 })
    const error = await store.get("sid").catch((error) => error)
    for (const descriptor of open) closeSync(descriptor)
    console.log(error.code)
    for (;;) {
      const found = await store.set("sid", { cookie: {} }).catch(() => undefined)
      if (found === null) break
    }
    console.log("works")
    await store.close()`,
      { descriptors: 128 },
    )
    assert.equal(printed, "ERR_REDIS_STORE_CONNECT\nworks\n", errors)
  },
)

test("an ended connection does not deliver answers of another one", () => {
  const { Pending } = require("../lib/native/pending.js")
  const { takeAnswers } = require("../lib/native/answers.js")
  const { answerHeader, answers } = loadProtocol()
  const pending = new Pending()
  const add = () => pending.open({ bytes: 0 })
  const first = add()
  const writes = {
    drain(rows) {
      rows[0] = 1
      rows[1] = 0
      rows.set([first, answers.ok, 0], answerHeader)
      return []
    },
  }
  takeAnswers(writes, pending, () => {})
  assert.equal(pending.count, 0)
  add()
  takeAnswers({ drain: () => [] }, pending, () => {})
  assert.equal(pending.count, 1)
})
