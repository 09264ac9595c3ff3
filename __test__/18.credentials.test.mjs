import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { recognise } = require("../lib/clients/adopt.js")
const Ioredis = (name) => require(name).default ?? require(name)
const quiet = (client) => client.on("error", () => {})

/** A server with a user whose password is renewed, and an administrator. */
let server
let admin
before(async () => {
  server = await startServer()
  admin = await createClient({ url: server.url }).connect()
})
after(async () => {
  admin.destroy()
  await server.stop()
})

const USER = "app"
const setPassword = (password) =>
  admin.sendCommand(["ACL", "SETUSER", USER, "on", "resetpass", `>${password}`, "~*", "+@all"])
/** Ends the connections of the user, except the one with this id. */
const drop = async (own) => {
  for (const line of (await admin.sendCommand(["CLIENT", "LIST"])).split("\n")) {
    const [, id] = /^id=(\d+) .* user=app /.exec(line) ?? []
    if (id !== undefined && id !== own) await admin.sendCommand(["CLIENT", "KILL", "ID", id])
  }
}
/** The id of a client's connection. */
const idOf = async (client) => {
  const words = ["CLIENT", "ID"]
  if (client.customCommand) return String(await client.customCommand(words))
  if (client.connector) return String(await client.call(...words))
  if (client.send_command)
    return new Promise((resolve) => client.send_command("CLIENT", ["ID"], (_, id) => resolve(String(id))))
  return String(await (client.options.legacyMode ? client.v4 : client).sendCommand(words))
}

/** Each opens a client, and returns the function by which its application renews the credentials. */
const CLIENTS = {}
for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
  const open = async (password) => {
    const Redis = Ioredis(name)
    const client = quiet(new Redis({ host: "127.0.0.1", port: server.port, username: USER, password }))
    await until(name, () => client.status === "ready")
    return [client, () => client.disconnect()]
  }
  CLIENTS[`${name}, by options.password`] = [open, (client, password) => (client.options.password = password)]
  CLIENTS[`${name}, by auth()`] = [open, (client, password) => client.auth(USER, password)]
}
for (const name of ["redis-4", "redis-5", "redis"]) {
  const open = async (password) => {
    const socket = { host: "127.0.0.1", port: server.port }
    const client = quiet(require(name).createClient({ socket, username: USER, password }))
    await client.connect()
    return [client, () => (client.destroy ? client.destroy() : client.disconnect())]
  }
  CLIENTS[`${name}, by options.password`] = [open, (client, password) => (client.options.password = password)]
  CLIENTS[`${name}, by auth()`] = [open, (client, password) => client.auth({ username: USER, password })]
}
for (const name of ["redis-5", "redis"]) {
  let current
  CLIENTS[`${name}, by its credentialsProvider`] = [
    async (password) => {
      current = password
      const credentials = async () => ({ username: USER, password: current })
      const credentialsProvider = { type: "async-credentials-provider", credentials }
      const client = quiet(require(name).createClient({ url: server.url, credentialsProvider }))
      await client.connect()
      return [client, () => client.destroy()]
    },
    (_client, password) => (current = password),
  ]
}
CLIENTS["redis 3, by auth()"] = [
  async (password) => {
    const client = quiet(require("redis-3").createClient({ url: server.url, user: USER, password }))
    await until("redis 3", () => client.ready)
    return [client, () => client.end(true)]
  },
  (client, password) => new Promise((resolve) => client.auth(password, USER, resolve)),
]
CLIENTS["valkey-glide, by updateConnectionPassword()"] = [
  async (password) => {
    const { GlideClient } = require("@valkey/valkey-glide")
    const client = await GlideClient.createClient({
      addresses: [{ host: "127.0.0.1", port: server.port }],
      credentials: { username: USER, password },
    })
    return [client, () => client.close()]
  },
  (client, password) => client.updateConnectionPassword(password, true),
]

/** Other ways to renew, by the names of the clients above. */
const WAYS = {
  "ioredis-4, ioredis-5, ioredis, iovalkey": {
    "call()": (client, password) => client.call("AUTH", USER, password),
    "a pipeline": (client, password) => client.pipeline().auth(USER, password).exec(),
    "auth() after options.password": async (client, password) => {
      client.options.password = "other"
      await client.auth(USER, password)
    },
  },
  "redis-4, redis-5, redis": {
    "AUTH()": (client, password) => client.AUTH({ username: USER, password }),
    "sendCommand()": (client, password) => client.sendCommand(["AUTH", USER, password]),
  },
  "redis-5, redis": {
    HELLO: (client, password) => client.sendCommand(["HELLO", "3", "AUTH", USER, password]),
    "auth() behind a view": (client, password) => client.withCommandOptions({}).auth({ username: USER, password }),
  },
  "valkey-glide": {
    "customCommand()": (client, password) => client.customCommand(["AUTH", USER, password]),
  },
}
for (const [names, ways] of Object.entries(WAYS)) {
  for (const name of names.split(", ")) {
    const [, [open]] = Object.entries(CLIENTS).find(([each]) => each.startsWith(`${name}, by `))
    for (const [way, renew] of Object.entries(ways)) CLIENTS[`${name}, by ${way}`] = [open, renew]
  }
}
for (const [way, renew] of Object.entries({
  "auth()": (client, password) =>
    new Promise((resolve, reject) => client.auth(USER, password, (error) => (error ? reject(error) : resolve()))),
  "v4.auth()": (client, password) => client.v4.auth({ username: USER, password }),
})) {
  CLIENTS[`redis-4 in legacyMode, by ${way}`] = [
    async (password) => {
      const options = { url: server.url, username: USER, password, legacyMode: true }
      const client = quiet(require("redis-4").createClient(options))
      await client.connect()
      return [client, () => client.disconnect()]
    },
    renew,
  ]
}

test("a store uses its client while its own credentials are refused, and switches when they are accepted", async (t) => {
  const warnings = []
  const listener = (warning) => warnings.push(warning)
  process.on("warning", listener)
  t.after(() => process.off("warning", listener))
  await setPassword("first")
  const client = quiet(createClient({ url: server.url, username: USER, password: "first" }))
  await client.connect()
  await setPassword("second")
  const store = new RedisStore({ client, prefix: ownPrefix() })
  const seen = []
  for (const event of ["ready", "error"]) store.on(event, () => seen.push(event))
  // Writes of one session in sequence, from before the first connection until long after it.
  let last = 0
  let isRunning = true
  const writing = (async () => {
    while (isRunning) {
      await store.set("sid", { cookie: {}, n: ++last })
      assert.equal((await store.get("sid")).n, last)
    }
  })()
  await until("the client to serve", () => !store.native)
  assert.equal(store.status, "ready")
  const served = last
  await until("more writes", () => last > served + 100)
  await setPassword("first")
  await until("the native connection", () => store.native)
  const went = last
  await until("more writes", () => last > went + 100)
  isRunning = false
  await writing
  assert.equal((await store.get("sid")).n, last)
  assert.ok(seen.includes("ready"))
  const { commands, pending } = store.stats()
  assert.equal(pending, 0)
  assert.equal(commands.set.ok, last)
  assert.deepEqual(
    warnings
      .filter(({ code }) => code === "CONNECT_REDIS_NATIVE_FALLBACK")
      .map(({ message }) => message.includes("first")),
    [false],
  )
  assert.match(warnings[0].message, /native connection cannot be opened.*WRONGPASS/)
  await store.close()
  client.destroy()
})

describe("credentials that are renewed on the client", () => {
  for (const [name, [open, renew]] of Object.entries(CLIENTS)) {
    test(name, async () => {
      await setPassword("first")
      const [client, close] = await open("first")
      const store = new RedisStore({ client, prefix: ownPrefix() })
      assert.equal(await store.set("sid", { cookie: {}, n: 1 }), null)
      assert.equal(store.native, true)
      const own = await idOf(client)
      await setPassword("second")
      await renew(client, "second")
      // The client's own connection stays.
      await drop(own)
      await until("service", () =>
        store.get("sid").then(
          (found) => found.n === 1,
          () => false,
        ),
      )
      await until("the native connection", () => store.native && store.status === "ready")
      assert.equal((await store.get("sid")).n, 1)
      await store.close()
      close()
    })
  }

  test("after WRONGPASS they are read again", async () => {
    await setPassword("first")
    const Redis = Ioredis("ioredis")
    const client = new Redis({
      host: "127.0.0.1",
      port: server.port,
      username: USER,
      password: "wrong",
      lazyConnect: true,
    })
    const store = new RedisStore({ client, prefix: ownPrefix() })
    await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_AUTH" })
    client.options.password = "first"
    await until("service", () =>
      store.get("sid").then(
        () => true,
        () => false,
      ),
    )
    assert.equal(store.native, true)
    await store.close()
  })
})

test("a cluster's credentials are read again from the client", async () => {
  const assertRenewed = async (client, renew) => {
    const { credentials } = recognise(client).settings()
    assert.equal((await credentials()).password, "first")
    renew(client)
    assert.equal((await credentials()).password, "second")
  }
  const login = (password) => ({ username: USER, password })
  for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
    const { Cluster } = Ioredis(name)
    const open = () => quiet(new Cluster([{ host: "h" }], { lazyConnect: true, redisOptions: login("first") }))
    await assertRenewed(open(), ({ options }) => (options.redisOptions.password = "second"))
    await assertRenewed(open(), ({ options }) => (options.redisOptions = login("second")))
  }
  for (const name of ["redis-5", "redis"]) {
    const options = { rootNodes: [{ socket: { host: "h" } }], defaults: login("first") }
    await assertRenewed(require(name).createCluster(options), () => (options.defaults.password = "second"))
  }
})

describe("a user name without a password", () => {
  let open
  let asAdmin
  before(async () => {
    open = await startServer()
    asAdmin = await createClient({ url: open.url }).connect()
    await asAdmin.sendCommand(["ACL", "SETUSER", USER, "on", "nopass", "~*", "+@all"])
  })
  after(async () => {
    asAdmin.destroy()
    await open.stop()
  })
  const address = () => ({ host: "127.0.0.1", port: open.port })

  /** Each opens a client, and returns a way to send a command and one to close it. */
  const NAMES_ALONE = {}
  for (const name of ["ioredis-4", "ioredis-5", "ioredis", "iovalkey"]) {
    for (const [how, more] of Object.entries({ "": {}, ', with the password ""': { password: "" } })) {
      NAMES_ALONE[`${name}${how}`] = [
        async () => {
          const client = quiet(new (Ioredis(name))({ ...address(), username: USER, ...more }))
          return [client, (...args) => client.call(...args), () => client.disconnect()]
        },
        USER,
      ]
    }
  }
  const nodeRedis = (name, more) => async () => {
    const client = quiet(require(name).createClient({ socket: address(), ...more() }))
    await client.connect()
    const close = () => (client.destroy ? client.destroy() : client.disconnect())
    return [client, (...args) => client.sendCommand(args), close]
  }
  const WAYS = {
    "": () => ({ username: USER }),
    ', with the password ""': () => ({ username: USER, password: "" }),
    ", by url": () => ({ url: `redis://${USER}@127.0.0.1:${open.port}` }),
  }
  for (const [way, more] of Object.entries(WAYS)) {
    NAMES_ALONE[`redis-4${way}`] = [nodeRedis("redis-4", more), USER]
    NAMES_ALONE[`redis-5${way}`] = [nodeRedis("redis-5", more), USER]
    NAMES_ALONE[`redis-5${way}, RESP 3`] = [nodeRedis("redis-5", () => ({ ...more(), RESP: 3 })), "default"]
    NAMES_ALONE[`redis${way}`] = [nodeRedis("redis", more), "default"]
    NAMES_ALONE[`redis${way}, RESP 2`] = [nodeRedis("redis", () => ({ ...more(), RESP: 2 })), USER]
  }
  for (const [how, more, user] of [
    ["", {}, "default"],
    [', with the password ""', { password: "" }, "default"],
  ]) {
    NAMES_ALONE[`redis 3${how}`] = [
      async () => {
        const client = quiet(require("redis-3").createClient({ ...address(), user: USER, ...more }))
        await until("redis 3", () => client.ready)
        const call = (name, ...args) =>
          new Promise((resolve, reject) =>
            client.send_command(name, args, (error, reply) => (error ? reject(error) : resolve(reply))),
          )
        return [client, call, () => client.end(true)]
      },
      "password" in more ? USER : user,
    ]
    NAMES_ALONE[`valkey-glide${how}`] = [
      async () => {
        const { GlideClient } = require("@valkey/valkey-glide")
        const client = await GlideClient.createClient({
          addresses: [address()],
          credentials: { username: USER, ...more },
        })
        return [client, (...args) => client.customCommand(args), () => client.close()]
      },
      user,
    ]
  }

  /** The users of all connections of a store whose client is `id`. */
  async function usersBeside(id) {
    const own = String(await asAdmin.sendCommand(["CLIENT", "ID"]))
    const lines = (await asAdmin.sendCommand(["CLIENT", "LIST"])).trim().split("\n")
    const others = lines.filter((line) => ![own, id].includes(/^id=(\d+)/.exec(line)[1]))
    return others.map((line) => / user=(\S+)/.exec(line)[1])
  }

  for (const [name, [connect, user]] of Object.entries(NAMES_ALONE)) {
    test(`is that of ${name}: ${user}`, async () => {
      const [client, call, close] = await connect()
      assert.equal(String(await call("ACL", "WHOAMI")), user)
      const id = String(await call("CLIENT", "ID"))
      const prefix = ownPrefix()
      // With onConflict the client cannot serve.
      const store = new RedisStore({ client, prefix, onConflict: "merge" })
      await store.ping()
      assert.deepEqual(await usersBeside(id), [user])
      await store.close()
      close()
      await until("no connection", async () => (await usersBeside("0")).length === 0)
    })
  }

  test("is that of a store by url, by username, and by credentials", async () => {
    for (const options of [
      { url: `redis://${USER}@127.0.0.1:${open.port}` },
      { url: open.url, username: USER },
      { url: open.url, username: USER, password: "" },
      { url: open.url, credentials: () => ({ username: USER }) },
    ]) {
      const store = new RedisStore(options)
      await store.ping()
      assert.deepEqual(await usersBeside("0"), [USER])
      await store.close()
      await until("no connection", async () => (await usersBeside("0")).length === 0)
    }
  })

  test("that the server does not know is an error", async () => {
    const store = new RedisStore({ url: open.url, username: "other" })
    await assert.rejects(store.ping(), { code: "ERR_REDIS_STORE_AUTH" })
    await store.close()
  })
})
