// Saves of sessions that no longer exist: destroyed, expired and evicted sessions differ.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"

import * as original from "connect-redis"
import { createClient, createCluster } from "redis"

import { RedisStore } from "../index.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { hold } from "./support/steps.mjs"

const require = createRequire(import.meta.url)
const { MARKER_LIFE_MS, isMarker, markerOf } = require("../lib/races/marker.js")
const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })
const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })

async function load(store, sid = "a") {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

/** Whether a session exists that `store` loaded, `remove` removed, and `store` then saved. */
async function survives(store, remove, sid = "a") {
  await store.set(sid, { cookie: cookie() })
  const loaded = await load(store, sid)
  await remove(sid)
  loaded.n = 1
  await store.set(sid, loaded)
  return (await store.get(sid)) !== null
}

describe("a marker", () => {
  test("is written by destroy, is empty, lives a minute, and is not a session", async () => {
    const store = open()
    await store.set("a", { cookie: cookie() })
    await store.destroy("a")
    const marker = markerOf(store.prefix, `${store.prefix}a`)
    assert.equal(await server.client.get(marker), "")
    const left = await server.client.pTTL(marker)
    assert.ok(left > MARKER_LIFE_MS - 10_000 && left <= MARKER_LIFE_MS, `${left}`)
    assert.deepEqual([await store.length(), await store.ids(), await store.all()], [0, [], []])
    await store.set("b", { cookie: cookie() })
    assert.equal(await store.clear(), null)
    assert.equal(await server.client.exists(marker), 1)
    assert.deepEqual([await store.length(), await store.ids(), await store.all()], [0, [], []])
    await store.close()
  })

  test("is distinguished from ids with braces, which are listed", async () => {
    for (const options of [{}, { prefix: "", url: `${server.url}/5` }]) {
      const store = open(options)
      const ids = ["a", "{a}", "a{b}c", "{a}b", "{", "}", "{}", "a}b"]
      for (const sid of ids) await store.set(sid, { cookie: cookie() })
      assert.deepEqual((await store.ids()).toSorted(), ids.toSorted())
      for (const sid of ids) {
        assert.equal(isMarker(store.prefix, store.prefix + sid), false)
        assert.equal(await survives(store, () => store.destroy(sid), sid), false, sid)
        const expired = () => store.touch(sid, { cookie: { ...cookie(), expires: new Date(0).toISOString() } })
        assert.equal(await survives(store, expired, `other ${sid}`), true, sid)
      }
      assert.equal(await store.length(), ids.length)
      assert.equal((await store.all()).length, ids.length)
      await store.clear()
      assert.deepEqual([await store.length(), await store.ids(), await store.all()], [0, [], []])
      await store.close()
    }
  })

  test("counts only if it is younger than the load", async () => {
    for (const onConflict of ["overwrite", "merge"]) {
      const store = open({ onConflict })
      await store.set("a", { cookie: cookie() })
      await store.destroy("a")
      const marker = markerOf(store.prefix, `${store.prefix}a`)
      await until("an older marker", async () => (await server.client.pTTL(marker)) < MARKER_LIFE_MS - 300)
      assert.equal(await survives(store, () => server.client.del(`${store.prefix}a`)), true)
      assert.equal(await survives(store, () => store.destroy("a")), false)
      await store.close()
    }
  })

  const WAYS = {
    "a native store": () => ({}),
    "the scripts of a client": () => ({
      client: createClient({ socket: { port: server.port, localAddress: "127.0.0.1" } }),
    }),
    "the commands of a wrapper": () => ({ client: new Proxy(createClient({ url: server.url }), {}) }),
  }
  for (const [name, options] of Object.entries(WAYS)) {
    test(`is not taken for an earlier one, however late the save comes: ${name}`, async () => {
      const { client } = options()
      await client?.connect()
      const store = open({ client, commandTimeoutMs: 20_000, ...(client !== undefined && { url: undefined }) })
      assert.equal(store.native, client === undefined)
      const key = `${store.prefix}a`
      const leftOfMarker = () => server.client.pTTL(markerOf(store.prefix, key))
      await store.set("a", { cookie: cookie() })
      await store.destroy("a")
      await until("an older marker", async () => (await leftOfMarker()) < MARKER_LIFE_MS - 300)
      let asked = 0
      hold(store, async (command) => {
        if (command !== "restore" || ++asked !== 2) return
        const known = await leftOfMarker()
        await store.set("a", { cookie: cookie() })
        await store.destroy("a")
        await until("a marker that has as little left", async () => (await leftOfMarker()) < known)
      })
      assert.equal(await survives(store, () => server.client.del(key)), false)
      assert.equal(asked, 2)
      await store.close()
      await client?.close()
    })
  }

  test("is distinguished from an earlier one by a wrapper that answers late", async () => {
    const client = await createClient({ url: server.url }).connect()
    let lateMs = 0
    const pTTL = async (key) => {
      const left = await client.pTTL(key)
      await delay(lateMs)
      return left
    }
    const wrapper = new Proxy(client, {
      get: (to, name) => (name === "pTTL" ? pTTL : (to[name]?.bind?.(to) ?? to[name])),
    })
    const store = open({ client: wrapper, url: undefined, commandTimeoutMs: 20_000 })
    assert.equal(store.native, false)
    await store.set("a", { cookie: cookie() })
    await store.destroy("a")
    const key = `${store.prefix}a`
    const left = () => server.client.pTTL(markerOf(store.prefix, key))
    await until("an older marker", async () => (await left()) < MARKER_LIFE_MS - 600)
    // Each is later than the one before it.
    const later = async () => {
      await server.client.del(key)
      hold(store, async (command) => {
        if (command === "restore") lateMs += 50
      })
    }
    assert.equal(await survives(store, later), true)
    assert.equal(await survives(store, () => store.destroy("a")), false)
    await store.close()
    await client.close()
  })

  test("may have expired if the load is older than a marker's lifetime: the save is dropped", async () => {
    const { Gone } = require("../lib/races/gone.js")
    const { now } = require("../lib/timers.js")
    const ends = []
    const request = { finish: (...end) => ends.push(end) }
    const gone = new Gone({ onDestroyed: "error", commandTimeoutMs: 2000 }, assert.fail, (dropped) =>
      ends.push(dropped),
    )
    gone.settle(request, { at: now() - MARKER_LIFE_MS, send: assert.fail })
    assert.equal(ends[0], request)
    assert.equal(ends[1][0].code, "ERR_REDIS_STORE_DESTROYED")
  })

  for (const [name, originalMaxAge, stored] of [
    ["is written by a save whose cookie the application has expired: maxAge is 0", 0, false],
    ["is not written by a save whose cookie has expired during the request", HOUR, true],
  ]) {
    test(name, async () => {
      const store = open()
      await store.set("a", { cookie: cookie() })
      const loaded = await load(store)
      await store.set("a", { cookie: { originalMaxAge, expires: new Date(0).toISOString() } })
      assert.equal(await store.get("a"), null)
      await store.set("a", loaded)
      assert.equal((await store.get("a")) !== null, stored)
      await store.close()
    })
  }
})

test("a structured clone of a tagged session is stored without its tag", async () => {
  const store = open({ tagSessions: true })
  await store.set("a", { cookie: cookie(), n: 1 })
  const clone = structuredClone(await store.get("a"))
  assert.equal(await store.set("a", { ...clone, n: 2 }), null)
  const { cookie: _, ...stored } = JSON.parse(await server.client.get(`${store.prefix}a`))
  assert.deepEqual(stored, { n: 2 })
  await store.close()
})

describe("onDestroyed", () => {
  test("skip drops the save, error fails it, save writes it; skip and error emit conflict", async () => {
    for (const [onDestroyed, code, stored, events] of [
      [undefined, undefined, false, 1],
      ["skip", undefined, false, 1],
      ["error", "ERR_REDIS_STORE_DESTROYED", false, 1],
      ["save", undefined, true, 0],
    ]) {
      for (const onConflict of ["overwrite", "merge", "error", (_base, mine) => mine]) {
        const store = open({ onDestroyed, onConflict })
        const told = []
        store.on("conflict", (conflict) => told.push(conflict.kind))
        await store.set("a", { cookie: cookie() })
        const loaded = await load(store)
        await store.destroy("a")
        const error = await store.set("a", loaded).then(
          () => undefined,
          (thrown) => thrown,
        )
        assert.equal(error?.code, code)
        assert.equal((await store.get("a")) !== null, stored)
        await until("the events", () => told.length >= events)
        assert.deepEqual(told, Array(events).fill("destroyed"))
        await store.close()
      }
    }
  })
})

describe("clear", () => {
  test("drops the saves of all loaded sessions, whether they still exist or not", async () => {
    for (const onConflict of ["overwrite", "merge"]) {
      const store = open({ onConflict })
      assert.equal(await survives(store, () => store.clear()), false)
      const gone = async (sid) => {
        await server.client.del(store.prefix + sid)
        await store.clear()
      }
      assert.equal(await survives(store, gone), false)
      await store.close()
    }
  })

  test("by another process, while 500 sessions are in use", async () => {
    const store = open()
    const other = open({ prefix: store.prefix })
    const ids = Array.from({ length: 500 }, (_, n) => `s${n}`)
    await Promise.all(ids.map((sid) => store.set(sid, { cookie: cookie() })))
    const loaded = await Promise.all(ids.map((sid) => load(store, sid)))
    const cleared = other.clear()
    await Promise.all(ids.map((sid, n) => store.set(sid, loaded[n])))
    await cleared
    await Promise.all(ids.map((sid, n) => store.set(sid, loaded[n])))
    assert.equal(await store.length(), 0)
    await Promise.all([store.close(), other.close()])
  })
})

describe("servers that refuse", () => {
  const acl = async (...rules) => {
    const name = `user${ownPrefix().replace(":", "")}`
    await server.client.sendCommand(["ACL", "SETUSER", name, "on", ">pw", "~*", "+@all", ...rules])
    return { username: name, password: "pw" }
  }

  test("scripts: destroy works, and the session stays destroyed", async () => {
    const store = open(await acl("-eval", "-evalsha"))
    assert.equal(await survives(store, () => store.destroy("a")), false)
    assert.equal(await survives(store, () => server.client.del(`${store.prefix}a`)), false)
    assert.equal(await survives(store, () => store.clear()), false)
    await store.close()
  })

  test("the key of the marker", async () => {
    const prefix = ownPrefix()
    const store = open({ prefix, ...(await acl("resetkeys", `~${prefix}a`)) })
    assert.equal(await survives(store, () => store.destroy("a")), false)
    assert.equal(await survives(store, () => server.client.del(`${prefix}a`)), false)
    await store.close()
  })

  test("all keys outside the prefix: no other permission is needed", async () => {
    const prefix = ownPrefix()
    const store = open({ prefix, ...(await acl("resetkeys", `~${prefix}*`)) })
    assert.equal(await survives(store, () => store.destroy("a")), false)
    assert.equal(await survives(store, () => server.client.del(`${prefix}b`), "b"), true)
    await store.close()
  })

  test("writes because memory is full: destroy works", async () => {
    const store = open()
    await store.set("a", { cookie: cookie() })
    await server.client.configSet("maxmemory", "1")
    try {
      await store.destroy("a")
      assert.equal(await store.get("a"), null)
      await store.clear()
    } finally {
      await server.client.configSet("maxmemory", "0")
    }
    await store.close()
  })

  test("unknown scripts: they are sent again", async () => {
    const store = open()
    assert.equal(await survives(store, () => store.destroy("a")), false)
    await server.client.scriptFlush()
    assert.equal(await survives(store, () => store.destroy("a")), false)
    await server.client.scriptFlush()
    assert.equal(await survives(store, () => server.client.del(`${store.prefix}b`), "b"), true)
    await store.close()
  })
})

test("without the command TIME, a marker counts by what it has left, and a younger one at once", async () => {
  const name = `user${ownPrefix().replace(":", "")}`
  await server.client.sendCommand(["ACL", "SETUSER", name, "on", ">pw", "~*", "+@all", "-time"])
  const store = open({ username: name, password: "pw" })
  await store.set("a", { cookie: cookie() })
  await store.destroy("a")
  const marker = markerOf(store.prefix, `${store.prefix}a`)
  await until("an older marker", async () => (await server.client.pTTL(marker)) < MARKER_LIFE_MS - 300)
  const asked = []
  hold(store, async (command) => command === "restore" && asked.push(command))
  assert.equal(await survives(store, () => server.client.del(`${store.prefix}a`)), true)
  assert.equal(asked.length, 2)
  assert.equal(await survives(store, () => store.destroy("a")), false)
  assert.equal(asked.length, 3)
  await store.close()
})

describe("a cluster", () => {
  test("has the marker in the slot of its session, and drops a save that it cannot check", async () => {
    const cluster = await startCluster({ replicas: 0 })
    const store = open({ url: undefined, nodes: cluster.nodes })
    const rootNodes = cluster.masters.map(({ url }) => ({ url }))
    const client = await createCluster({ rootNodes }).connect()
    for (let n = 0; n < 20; n++) {
      assert.equal(await survives(store, (sid) => store.destroy(sid), `d${n}`), false)
      assert.equal(await survives(store, (sid) => client.del(store.prefix + sid), `e${n}`), true)
    }
    assert.equal(await survives(store, (sid) => client.del(store.prefix + sid), "a{b}c"), false)
    assert.equal(await survives(store, (sid) => store.destroy(sid), "a{b}c"), false)
    assert.equal(await survives(store, () => store.clear(), "cleared"), false)
    assert.equal(await store.length(), 0)
    await store.close()
    await client.close()
    await cluster.stop()
  })
})

describe("connect-redis 10 on the same Redis", () => {
  test("reads, writes and destroys as before, and counts markers for a minute", async () => {
    const prefix = ownPrefix()
    const client = await createClient({ url: server.url }).connect()
    const theirs = new original.RedisStore({ client, prefix })
    const ours = open({ prefix })
    await ours.set("a", { cookie: cookie(), by: "ours" })
    assert.equal((await theirs.get("a")).by, "ours")
    await ours.destroy("a")
    assert.equal(await theirs.get("a"), null)
    assert.deepEqual(await theirs.all(), [])
    assert.equal(await theirs.length(), 1)
    assert.equal(await ours.length(), 0)
    await theirs.set("a", { cookie: cookie(), by: "theirs" })
    assert.equal((await ours.get("a")).by, "theirs")
    await theirs.destroy("a")
    assert.equal(await ours.get("a"), null)
    // A destroy by connect-redis leaves no marker.
    assert.equal(await survives(ours, () => theirs.destroy("b"), "b"), true)
    await theirs.clear()
    assert.equal(await theirs.length(), 0)
    await ours.close()
    await client.close()
  })
})
