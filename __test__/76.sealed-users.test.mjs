// The sessions of users, with sessions that are sealed.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"

import { createClient, createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { EVERYTHING, KEYS, SEALED, handleOf, key } from "./support/sealed.mjs"
import { cookie, holdsForUsers, indexKeys, load, signIn, userOf } from "./support/users.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const commandTimeoutMs = 20_000
const opened = []
const open = (options) => {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), userOf, commandTimeoutMs, ...options })
  opened.push(store)
  return store
}
const WITHOUT_HASHES = { encryption: SEALED.encryption, compression: { minBytes: 100 } }
const MODES = {
  sealed: SEALED,
  "every option": EVERYTHING,
  "every option, limited": { ...EVERYTHING, maxSessionsPerUser: 10, sessionInfo: () => ({}) },
  encryption: WITHOUT_HASHES,
  'hashIds "migrate"': { ...SEALED, hashIds: "migrate" },
  'hashIds "migrate", every option': { ...EVERYTHING, hashIds: "migrate" },
  'hashIds "prepare"': { ...WITHOUT_HASHES, hashIds: "prepare" },
  'hashIds "prepare", every option that compares': {
    ...EVERYTHING,
    encryption: null,
    compression: null,
    hashIds: "prepare",
  },
}

/** How the key of a session ends in a store of these options. */
const nameOf = ({ hashIds }, sid) => (hashIds === true || hashIds === "migrate" ? handleOf(sid) : sid)

/** Takes a session away by its key without a hash. */
const evicting = (client, options, prefix, own = "") => {
  return (plain) => client.del(own + prefix + nameOf(options, plain.slice(prefix.length)))
}

describe("one server", () => {
  for (const [name, options] of Object.entries(MODES)) {
    test(name, async () => {
      const store = open(options)
      await holdsForUsers(store, {
        evict: evicting(server.client, options, store.prefix),
        count: async () => (await indexKeys(server.client, `users:${store.prefix}`)).length,
      })
    })
  }

  const delegated = ({ name, native, pttl }) =>
    native === false && pttl === undefined && !/^an unknown client|^a Proxy/.test(name)
  for (const kind of CLIENTS.filter(delegated)) {
    for (const name of ["sealed", 'hashIds "migrate"', 'hashIds "prepare"']) {
      test(`${kind.name}, ${name}`, async () => {
        const client = await kind.open(server.url)
        const store = open({ url: undefined, client, ...MODES[name] })
        assert.equal(store.native, false)
        await holdsForUsers(store, {
          evict: evicting(server.client, MODES[name], store.prefix),
          count: async () => (await indexKeys(server.client, `users:${store.prefix}`)).length,
        })
        await store.close()
        await kind.close(client)
      })
    }
  }
})

describe("a cluster", () => {
  let cluster
  let client
  const each = []
  before(async () => {
    cluster = await startCluster({ replicas: 0 })
    client = await createCluster({ rootNodes: cluster.masters.map(({ url }) => ({ url })) }).connect()
    for (const { url } of cluster.masters) each.push(await createClient({ url }).connect())
  })
  after(async () => {
    for (const one of [client, ...each]) one.destroy()
    await cluster.stop()
  })
  const count = async (userPrefix) => (await Promise.all(each.map((one) => indexKeys(one, userPrefix)))).flat().length

  for (const [name, options] of Object.entries(MODES)) {
    test(name, async () => {
      const store = open({ url: undefined, nodes: cluster.nodes, ...options })
      await holdsForUsers(store, {
        evict: evicting(client, options, store.prefix),
        count: () => count(`users:${store.prefix}`),
      })
    })
  }

  test("ioredis with a key prefix, sealed", async () => {
    const Redis = require("ioredis").default
    const own = new Redis.Cluster(cluster.nodes, { keyPrefix: "own:" }).on("error", () => {})
    const store = open({ url: undefined, client: own, ...EVERYTHING })
    await holdsForUsers(store, {
      evict: evicting(client, EVERYTHING, store.prefix, "own:"),
      count: () => count(`own:users:${store.prefix}`),
    })
    await store.close()
    own.disconnect()
  })
})

describe("handles", () => {
  test("sessionsOf, ids and all give the same, and destroyHandle takes them with and without a user", async () => {
    for (const hashIds of [true, "migrate"]) {
      const store = open({ ...SEALED, hashIds })
      for (const sid of ["a", "b", "c"]) await signIn(store, sid, "ada")
      const handles = (await store.sessionsOf("ada")).map(({ handle }) => handle).toSorted()
      assert.deepEqual(handles, ["a", "b", "c"].map(handleOf).toSorted())
      assert.deepEqual((await store.ids()).toSorted(), handles)
      assert.deepEqual((await store.all()).map(({ id }) => id).toSorted(), handles)
      assert.equal(await store.destroyHandle("bob", handleOf("a")), false)
      assert.equal(await store.destroyHandle("ada", handleOf("a")), true)
      assert.equal(await store.destroyHandle(handleOf("b")), true)
      assert.equal(await store.destroyHandle(handleOf("b")), false)
      const called = await new Promise((resolve) => {
        store.destroyHandle(handleOf("c"), (...result) => resolve(result))
      })
      assert.deepEqual(called, [null, true])
      assert.deepEqual(await indexKeys(server.client, `users:${store.prefix}`), [])
      for (const sid of ["a", "b", "c"]) assert.equal(await store.get(sid), null)
    }
  })

  test("of one session ends it for the requests that have loaded it too", async () => {
    const store = open(SEALED)
    await signIn(store, "a", "ada")
    const loaded = await load(store, "a")
    await store.destroyHandle(handleOf("a"))
    await store.set("a", loaded)
    assert.equal(await store.get("a"), null)
    assert.deepEqual(await store.sessionsOf("ada"), [])
  })
})

describe("values that do not open", () => {
  const broken = async (store) => {
    const other = open({ ...SEALED, prefix: store.prefix, encryption: { keys: [key("other", 9)] } })
    await signIn(other, "strange", "ada")
    await signIn(store, "own", "ada")
  }

  test("are listed, as their index names them, and keep their entries", async () => {
    const store = open({ ...SEALED, sessionInfo: ({ user }) => ({ user }) })
    await broken(store)
    for (let round = 0; round < 2; round++) {
      const found = await store.sessionsOf("ada")
      assert.deepEqual(found.map(({ handle }) => handle).toSorted(), ["own", "strange"].map(handleOf).toSorted())
    }
    await assert.rejects(store.get("strange"), { code: "ERR_REDIS_STORE_DECODE", message: /"other"/ })
  })

  test("are ended by destroyUser, whatever keys a process has", async () => {
    const store = open(SEALED)
    await broken(store)
    assert.equal(await store.destroyUser("ada"), 2)
    assert.equal(await store.length(), 0)
    assert.deepEqual(await indexKeys(server.client, `users:${store.prefix}`), [])
  })
})

describe("sessionInfo", () => {
  const info = ({ agent }) => ({ agent })
  const enter = (store, sid, agent) => store.set(sid, { cookie: cookie(), user: "ada", agent })
  const agents = async (store) => (await store.sessionsOf("ada")).map((found) => found.info.agent).toSorted()

  test("is sealed as sessions are, and read with any of the keys", async () => {
    const store = open({ ...SEALED, sessionInfo: info })
    await enter(store, "a", "Firefox")
    const [index] = await indexKeys(server.client, `users:${store.prefix}`)
    const [entry] = await server.client.hVals(index)
    assert.match(entry, /"sealed":"~1s\.new\./)
    assert.ok(!entry.includes("Firefox"))
    assert.deepEqual(await agents(store), ["Firefox"])
    const turned = open({ ...SEALED, prefix: store.prefix, sessionInfo: info, encryption: { keys: KEYS.toReversed() } })
    assert.deepEqual(await agents(turned), ["Firefox"])
    // An entry of another session, or of another key, does not open.
    await enter(store, "b", "Chrome")
    const stored = await server.client.hGetAll(index)
    const text = (sid) => stored[handleOf(sid)].match(/"sealed":"([^"]*)"/)[1]
    await server.client.hSet(index, handleOf("b"), stored[handleOf("b")].replace(text("b"), text("a")))
    assert.deepEqual(await agents(store), ["Firefox", undefined])
  })

  test("is sealed by reseal() with the first key, and in plain text with none; times stay", async () => {
    const [NEW, OLD] = KEYS
    const prefix = ownPrefix()
    const modes = [
      [[OLD], "accept", /"sealed":"~1s\.old\./],
      [[NEW, OLD], "reject", /"sealed":"~1s\.new\./],
      [[NEW], "reject", /"sealed":"~1s\.new\./],
      [[NEW], "write", /"info":\{"agent":"Firefox"\}/],
      [[OLD], "accept", /"sealed":"~1s\.old\./],
    ]
    let times
    for (const [keys, plaintext, shape] of modes) {
      const store = open({ hashIds: true, prefix, sessionInfo: info, encryption: { keys, plaintext } })
      if (times === undefined) await enter(store, "a", "Firefox")
      await store.reseal()
      const [index] = await indexKeys(server.client, `users:${prefix}`)
      const [entry] = await server.client.hVals(index)
      assert.match(entry, shape)
      times ??= entry.slice(0, entry.indexOf("{"))
      assert.ok(entry.startsWith(times))
      assert.deepEqual(await agents(store), ["Firefox"])
    }
  })

  test("in plain text is read as sessions in plain text are", async () => {
    const prefix = ownPrefix()
    await enter(open({ hashIds: true, prefix, sessionInfo: info }), "a", "Firefox")
    for (const [plaintext, wanted] of [
      ["accept", ["Firefox"]],
      ["write", ["Firefox"]],
      ["reject", [undefined]],
    ]) {
      const store = open({ hashIds: true, prefix, sessionInfo: info, encryption: { keys: KEYS, plaintext } })
      assert.deepEqual(await agents(store), wanted, plaintext)
    }
  })
})

describe("ids that are being hashed", () => {
  const stages = (prefix, more) => [
    open({ prefix, ...more }),
    open({ prefix, hashIds: "prepare", ...more }),
    open({ prefix, hashIds: "migrate", ...more }),
    open({ prefix, hashIds: true, ...more }),
  ]

  test("every stage lists and ends the sessions of the others", async () => {
    for (const more of [{}, WITHOUT_HASHES]) {
      const prefix = ownPrefix()
      const [plain, preparing, moving, hashed] = stages(prefix, more)
      for (const reader of [preparing, moving, hashed]) {
        await signIn(plain, "plain", "ada")
        await signIn(preparing, "prepared", "ada")
        await signIn(preparing, "moved", "ada")
        assert.notEqual(await moving.get("moved"), null)
        await signIn(moving, "hashed", "ada")
        const sids = ["plain", "prepared", "moved", "hashed"]
        const handles = (await reader.sessionsOf("ada")).map(({ handle }) => handle)
        assert.deepEqual(handles.toSorted(), sids.map(handleOf).toSorted())
        assert.equal(await reader.destroyHandle("ada", handleOf("moved")), true)
        assert.equal(await reader.destroyUser("ada", { except: "plain" }), 2)
        assert.equal(await plain.length(), 1)
        assert.equal(await reader.destroyUser("ada"), 1)
        assert.equal(await plain.length(), 0)
        assert.deepEqual(await indexKeys(server.client, `users:${prefix}`), [])
      }
    }
  })

  test("reseal() leaves no id in an index", async () => {
    const prefix = ownPrefix()
    const [plain, , moving, hashed] = stages(prefix, { sessionInfo: () => ({ n: 1 }) })
    await signIn(plain, "plain", "ada")
    const [index] = await indexKeys(server.client, `users:${prefix}`)
    assert.match((await server.client.hVals(index))[0], /:plain"/)
    await moving.reseal()
    assert.ok((await server.client.hVals(index))[0].includes(`"${prefix}${handleOf("plain")}"`))
    assert.equal((await hashed.sessionsOf("ada"))[0].info.n, 1)
    assert.equal((await hashed.get("plain")).user, "ada")
  })

  test("a session has one entry and one key, whoever saves it", async () => {
    const prefix = ownPrefix()
    const [, preparing, moving] = stages(prefix, WITHOUT_HASHES)
    await signIn(preparing, "a", "ada")
    await signIn(moving, "a", "ada")
    assert.deepEqual(await server.client.keys(`${prefix}a`), [])
    const loaded = await load(preparing, "a")
    loaded.n = 1
    await preparing.set("a", loaded)
    assert.deepEqual(await server.client.keys(`${prefix}a`), [])
    assert.equal((await moving.get("a")).n, 1)
    await signIn(preparing, "a", "ada")
    assert.deepEqual([await moving.length(), (await moving.sessionsOf("ada")).length], [1, 1])
    await preparing.destroy("a")
    assert.deepEqual(await indexKeys(server.client, `users:${prefix}`), [])
  })

  test("a hundred sign-ins and moves against a revoke: none is alive in no index", async () => {
    const prefix = ownPrefix()
    const [, preparing, moving] = stages(prefix, {})
    for (let round = 0; round < 100; round++) {
      await Promise.all([signIn(preparing, "a", "ada"), signIn(moving, "b", "ada"), signIn(preparing, "c", "ada")])
      await Promise.all([moving.get("a"), moving.destroyUser("ada"), preparing.get("c"), moving.get("c")])
      assert.equal(await moving.length(), 0, `round ${round}`)
    }
  })
})

test("keys that come later: listing and ending wait for them", async () => {
  const prefix = ownPrefix()
  await signIn(open({ ...SEALED, prefix }), "a", "ada")
  for (const [method, wanted] of [
    ["sessionsOf", ({ length }) => length === 1],
    ["destroyUser", (count) => count === 1],
  ]) {
    let give
    const keys = () => new Promise((resolve) => (give = () => resolve(KEYS)))
    const store = open({ ...SEALED, prefix, encryption: { keys } })
    const answer = store[method]("ada")
    await until("the question", () => give)
    give()
    assert.ok(wanted(await answer), method)
  }
})

test("every store can be closed", async () => {
  await Promise.all(opened.map((store) => store.close()))
})
