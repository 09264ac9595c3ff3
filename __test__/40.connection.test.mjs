import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { after, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const PASSWORD = "p@ss:w/ör%d"
const session = { cookie: { originalMaxAge: null } }

const guarded = ownServer({}, (client) =>
  client.sendCommand(["ACL", "SETUSER", "app", "on", `>${PASSWORD}`, "~*", "&*", "+@all"]),
)
const opened = []
after(() => Promise.all(opened.map((store) => store.close())))

function open(options) {
  const store = new RedisStore({ prefix: ownPrefix(), ...options })
  opened.push(store)
  return store
}

/** The connections of the store named `name`, as the server lists them. */
async function connections(name) {
  const list = await guarded.client.sendCommand(["CLIENT", "LIST"])
  return list.split("\n").filter((line) => line.includes(` name=${name} `))
}

const field = (line, name) => new RegExp(`(?:^| )${name}=(\\S*)`).exec(line)[1]

describe("a url contains every setting", () => {
  const URLS = {
    "host, port": () => guarded.url,
    "user, password, database": () => guarded.url.replace("//", `//app:${encodeURIComponent(PASSWORD)}@`) + "/3",
    localhost: () => guarded.url.replace("127.0.0.1", "localhost"),
    "a URL object": () => new URL(guarded.url),
  }
  for (const [name, url] of Object.entries(URLS)) {
    test(name, async () => {
      const store = open({ url: url() })
      await store.set("sid", session)
      assert.equal(await store.length(), 1)
    })
  }

  test("the store writes to the database in the url", async () => {
    const store = open({ url: `${guarded.url}/5` })
    await store.set("sid", session)
    const inFive = await guarded.client.duplicate({ database: 5 }).connect()
    assert.equal(await inFive.exists(`${store.prefix}sid`), 1)
    assert.equal(await guarded.client.exists(`${store.prefix}sid`), 0)
    await inFive.close()
  })

  test("a unix socket", async (t) => {
    if (process.platform === "win32") return t.skip("Redis serves no unix sockets on Windows")
    const server = await startServer({ args: ["--unixsocket", "redis.sock"] })
    const store = open({ url: `redis+unix://${join(server.folder, "redis.sock")}?db=2` })
    await store.set("sid", session)
    assert.deepEqual(await store.ids(), ["sid"])
    await store.close()
    await server.stop()
  })
})

describe("a client's settings are adopted", () => {
  const secured = () => guarded.url.replace("//", `//app:${encodeURIComponent(PASSWORD)}@`) + "/4"
  const Ioredis = (name) => require(name).default ?? require(name)
  const CLIENTS = {
    "redis-4": (name) => require("redis-4").createClient({ url: secured(), name }),
    "redis-5": (name) => require("redis-5").createClient({ url: secured(), name }),
    redis: (name) => require("redis").createClient({ url: secured(), name }),
    "ioredis-5": (name) => new (Ioredis("ioredis-5"))(secured(), { lazyConnect: true, connectionName: name }),
    ioredis: (name) => new (Ioredis("ioredis"))(secured(), { lazyConnect: true, connectionName: name }),
  }
  for (const [kind, make] of Object.entries(CLIENTS)) {
    test(`${kind}: user, password, database and name, before it is connected`, async () => {
      const name = `adopted-${kind}`
      const store = open({ client: make(name) })
      await store.set("sid", session)
      const [line] = await connections(name)
      assert.equal(field(line, "db"), "4")
      assert.equal(field(line, "user"), "app")
    })
  }

  const SELECTED = {
    "redis-4": async () => {
      const client = require("redis-4").createClient({ url: guarded.url })
      await client.connect()
      await client.select(6)
      return [client, () => client.disconnect()]
    },
    redis: async () => {
      const client = await require("redis").createClient({ url: guarded.url }).connect()
      await client.select(6)
      return [client, () => client.destroy()]
    },
    ioredis: async () => {
      const client = new (Ioredis("ioredis"))(guarded.url)
      await client.select(6)
      return [client, () => client.disconnect()]
    },
    "redis-3": async () => {
      const client = require("redis-3").createClient(guarded.url)
      await new Promise((resolve) => client.select(6, resolve))
      return [client, () => client.end(false)]
    },
  }
  for (const [kind, make] of Object.entries(SELECTED)) {
    test(`${kind}: the database that it has selected later`, async () => {
      const [client, close] = await make()
      const store = open({ client })
      await store.set("sid", session)
      const inSix = await guarded.client.duplicate({ database: 6 }).connect()
      assert.equal(await inSix.exists(`${store.prefix}sid`), 1)
      await inSix.close()
      await close()
    })
  }

  test("settings that are changed in the same turn as the constructor count", async () => {
    const client = new (Ioredis("ioredis"))(guarded.url, { lazyConnect: true })
    const store = open({ client })
    client.options.db = 7
    await store.set("sid", session)
    const inSeven = await guarded.client.duplicate({ database: 7 }).connect()
    assert.equal(await inSeven.exists(`${store.prefix}sid`), 1)
    await inSeven.close()
  })

  const EMPTY = {
    "redis, connected": () =>
      require("redis")
        .createClient({ socket: { port: guarded.port }, username: null, password: null, name: null })
        .on("error", () => {})
        .connect(),
    "redis, not connected": () => require("redis").createClient({ socket: { port: guarded.port }, password: null }),
    "ioredis, lazy": () =>
      new (Ioredis("ioredis"))({ port: guarded.port, password: "", username: null, lazyConnect: true }),
  }
  for (const [kind, make] of Object.entries(EMPTY)) {
    test(`${kind}: null and "" count as absent user, password and name`, async () => {
      const client = await make()
      const store = open({ client })
      assert.equal(await store.set("sid", session), null)
      if (client.isOpen) client.destroy()
    })
  }

  test("a password without a user, of every client, lazy or not", async () => {
    const server = await startServer({ args: ["--requirepass", "12345"] })
    const url = server.url.replace("//", "//:12345@")
    const clients = [
      ...["redis-4", "redis-5", "redis"].map((name) => require(name).createClient({ url })),
      ...["ioredis-4", "ioredis-5", "ioredis"].map((name) => new (Ioredis(name))(url, { lazyConnect: true })),
      new (Ioredis("ioredis"))({ port: server.port, password: 12345, lazyConnect: true }),
    ]
    for (const client of clients) assert.equal(await open({ client }).set("sid", session), null)
    const connected = new (Ioredis("ioredis"))(url)
    assert.equal(await open({ client: connected }).set("sid", session), null)
    connected.disconnect()
    await server.stop()
  })

  test("a password that the server does not require is left out, but not that of an ACL user", async () => {
    const url = guarded.url.replace("//", "//:needless@")
    const client = new (Ioredis("ioredis"))(url, { lazyConnect: true })
    assert.equal(await open({ client }).set("sid", session), null)
    const named = open({ url: guarded.url.replace("//", "//nobody:needless@") })
    await assert.rejects(named.get("sid"), { code: "ERR_REDIS_STORE_AUTH" })
  })

  test("the client itself is not used", async () => {
    const client = require("redis").createClient({ url: guarded.url })
    const store = open({ client })
    await store.set("sid", session)
    await store.close()
    assert.equal(client.isOpen, false)
  })
})

describe("credentials that change", () => {
  const user = (password) =>
    guarded.client.sendCommand(["ACL", "SETUSER", "changing", "on", "resetpass", `>${password}`, "~*", "&*", "+@all"])
  const dropped = () => guarded.client.sendCommand(["CLIENT", "KILL", "USER", "changing"])

  test("are requested at every connect", async () => {
    await user("first")
    let password = "first"
    let asked = 0
    const credentials = async () => {
      asked++
      return { username: "changing", password }
    }
    const store = open({ url: guarded.url, credentials })
    await store.set("sid", session)
    assert.equal(asked, 1)
    await user("second")
    password = "second"
    await dropped()
    assert.deepEqual(await store.get("sid"), session)
    assert.equal(asked, 2)
  })

  test("that are wrong are requested again until they are right", async () => {
    await user("right")
    const passwords = ["wrong-secret", "wrong-secret", "right"]
    const store = open({
      url: guarded.url,
      credentials: () => ({ username: "changing", password: passwords.length > 1 ? passwords.shift() : passwords[0] }),
    })
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_AUTH" })
    await until("the right password", () =>
      store.get("sid").then(
        () => true,
        () => false,
      ),
    )
  })

  test("of a redis client's credentialsProvider are requested too", async () => {
    await user("provided")
    for (const name of ["redis-5", "redis"]) {
      const credentials = async () => ({ username: "changing", password: "provided" })
      const credentialsProvider = { type: "async-credentials-provider", credentials }
      const client = require(name).createClient({ url: guarded.url, credentialsProvider, name: `provided-${name}` })
      const store = open({ client })
      assert.equal(await store.set("sid", session), null)
      const [line] = await connections(`provided-${name}`)
      assert.equal(field(line, "user"), "changing")
    }
  })

  test("are requested again when the server rejects them", async () => {
    const seen = []
    const fake = await startFakeServer(([name, ...words], connection) => {
      if (name === "AUTH") return "+OK\r\n"
      if (name === "CLIENT") return words[0] === "ID" ? `:${connection}\r\n` : "+OK\r\n"
      seen.push(`${name} on ${connection}`)
      return connection === 1 ? "-NOAUTH Authentication required.\r\n" : "$-1\r\n"
    })
    let asked = 0
    const credentials = () => ({ password: `token-${++asked}` })
    const store = open({ url: fake.url, credentials })
    assert.equal(await store.get("sid"), null)
    assert.deepEqual([asked, seen], [2, ["GET on 1", "GET on 2"]])
    await store.close()
    fake.stop()
  })

  test("are requested again without a change of the order on one session", async () => {
    const ttls = Array.from({ length: 40 }, (_, n) => (n + 1) * 1000)
    const seen = []
    const fake = await startFakeServer(([name, ...words], connection) => {
      if (name === "AUTH") return "+OK\r\n"
      if (name === "CLIENT") return words[0] === "ID" ? `:${connection}\r\n` : "+OK\r\n"
      const ttl = Number(words[1])
      // Two pipelines: the first is refused, the second is on the wire when the connection is given up.
      if (connection === 1) return ttl <= 32_000 ? "-NOAUTH Authentication required.\r\n" : ""
      seen.push(ttl)
      return ":1\r\n"
    })
    const store = open({ url: fake.url, ttl: (data) => data.seconds, credentials: () => ({ password: "token" }) })
    await Promise.all(ttls.map((ttl) => store.touch("sid", { seconds: ttl / 1000 })))
    assert.deepEqual(seen, ttls)
    await store.close()
    fake.stop()
  })

  const FAILURES = {
    "that throws": () => {
      throw new Error("the vault is closed")
    },
    "that rejects": () => Promise.reject(new Error("the vault is closed")),
    "that returns nothing": () => undefined,
    "that returns a number": () => ({ password: 5 }),
  }
  for (const [name, credentials] of Object.entries(FAILURES)) {
    test(`a function ${name} is an AUTH error, with the function's error as cause`, async () => {
      const store = open({ url: guarded.url, credentials })
      const error = await store.get("sid").then(
        () => assert.fail("no error"),
        (thrown) => thrown,
      )
      assert.equal(error.code, "ERR_REDIS_STORE_AUTH")
      assert.match(error.cause.message, /the vault is closed|must return|Cannot destructure/)
    })
  }

  test("a function that never answers is a CONNECT error", async () => {
    const store = open({
      url: guarded.url,
      connectTimeoutMs: 100,
      commandTimeoutMs: 300,
      credentials: () => new Promise(() => {}),
    })
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_CONNECT" })
  })
})

describe("connecting", () => {
  // Linux lists the timer of each socket: 2 is that of keep-alive, in hundredths of a second.
  const skip = process.platform !== "linux" && "only Linux lists the timers of sockets"
  test("switches TCP keep-alive on", { skip }, async () => {
    const store = open({ url: guarded.url, clientName: "keep-alive" })
    await store.get("sid")
    const [, , port] = field((await connections("keep-alive"))[0], "addr").match(/^(.*):(\d+)$/)
    const local = `0100007F:${Number(port).toString(16).toUpperCase().padStart(4, "0")}`
    await until("a timer of keep-alive", async () => {
      const rows = readFileSync("/proc/net/tcp", "utf8").split("\n")
      const [timer, due] = rows
        .map((row) => row.trim().split(/\s+/))
        .find((columns) => columns[1] === local)[5]
        .split(":")
      return timer === "02" && Number.parseInt(due, 16) <= 1500
    })
  })

  test("happens by itself, before the first request", async () => {
    open({ client: require("redis").createClient({ url: guarded.url, name: "eager" }) })
    await until("a connection", async () => (await connections("eager")).length === 1)
  })

  test("happens again after the server has dropped the connection", async () => {
    const store = open({ client: require("redis").createClient({ url: guarded.url, name: "dropped" }) })
    await store.set("sid", session)
    const before = field((await connections("dropped"))[0], "id")
    await guarded.client.sendCommand(["CLIENT", "KILL", "ID", before])
    await until("a new connection", async () => {
      const [line] = await connections("dropped")
      return line && field(line, "id") !== before
    })
    assert.deepEqual(await store.get("sid"), session)
  })

  test("again after a restart does not end the connections of others", async () => {
    const first = await startServer()
    const store = new RedisStore({ url: first.url, commandTimeoutMs: 20_000 })
    const others = await Promise.all(Array.from({ length: 20 }, () => createClient({ url: first.url }).connect()))
    await store.get("sid")
    for (const other of others) other.destroy()
    await first.stop()
    const second = await startServer({ port: first.port })
    const strangers = await Promise.all(
      Array.from({ length: 60 }, () =>
        createClient({ url: second.url, socket: { reconnectStrategy: false } }).connect(),
      ),
    )
    let dropped = 0
    for (const stranger of strangers) stranger.on("error", () => dropped++)
    await store.get("sid")
    assert.ok((await Promise.all(strangers.map((stranger) => stranger.ping()))).every((reply) => reply === "PONG"))
    assert.equal(dropped, 0)
    for (const stranger of strangers) stranger.destroy()
    await store.close()
    await second.stop()
  })

  test("waits for a server that starts late, and so do requests", async () => {
    const first = await startServer()
    const { port } = first
    await first.stop()
    const store = open({ url: first.url, commandTimeoutMs: 8000 })
    const early = store.set("sid", session)
    const late = await startServer({ port })
    assert.equal(await early, null)
    assert.deepEqual(await store.get("sid"), session)
    await store.close()
    await late.stop()
  })
})

test("requests wait for a server that is loading its data", async () => {
  const first = await startServer()
  const writer = await createClient({ url: first.url }).connect()
  for (let n = 0; n < 500; n++) await writer.set(`k${n}`, "v".repeat(200))
  await writer.set("sess:sid", JSON.stringify(session))
  await writer.sendCommand(["SAVE"])
  writer.destroy()
  const second = await startServer({
    args: ["--dir", first.folder, "--key-load-delay", 2000, "--loading-process-events-interval-bytes", 1024],
    ready: "Server initialized",
  })
  const watcher = await createClient({ url: second.url })
    .on("error", () => {})
    .connect()
  await until("LOADING", () =>
    watcher.get("k").then(
      () => false,
      (error) => /LOADING/.test(error.message),
    ),
  )
  const store = new RedisStore({ url: second.url, commandTimeoutMs: 20_000 })
  assert.deepEqual(await store.get("sid"), session)
  await store.close()
  watcher.destroy()
  await second.stop()
  await first.stop()
})
