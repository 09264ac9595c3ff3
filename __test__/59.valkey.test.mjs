// Servers whose SET compares by itself: Valkey since 8.1, Redis since 8.4.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { describe, test } from "node:test"
import { fileURLToPath } from "node:url"

import { RedisStore } from "../index.mjs"
import { startProxy } from "../testing/proxy.mjs"
import { until } from "../testing/until.mjs"
import { findValkey, ownPrefix, ownServer } from "./support/servers.mjs"

const valkey = await findValkey()
const own = ownServer()
const skip = valkey === undefined && "no pip, or no wheel of Valkey for this platform"
const HOUR = 3_600_000

const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })

async function load(store) {
  return store.createSession({ sessionID: "a", sessionStore: store }, await store.get("a"))
}

/** Saves a session that was loaded, after `meanwhile`, and returns the commands that this took. */
async function save(store, change, meanwhile = () => {}) {
  await store.set("a", { cookie: cookie(), n: 0 })
  const session = await load(store)
  await meanwhile(store.prefix + "a")
  const before = store.stats().commands
  await store.set("a", Object.assign(session, change))
  const after = store.stats().commands
  const counts = Object.keys(after).map((name) => [name, (after[name].ok ?? 0) - (before[name]?.ok ?? 0)])
  return Object.fromEntries(counts.filter(([, count]) => count > 0))
}

describe("Valkey", { skip }, () => {
  const server = ownServer({ server: valkey })
  const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), onConflict: "merge", ...options })

  test("a session without concurrent writes is saved by SET, with its time to live", async () => {
    const store = open()
    assert.deepEqual(await save(store, { n: 1 }), { set: 1 })
    assert.equal((await store.get("a")).n, 1)
    const ttl = await server.client.pTTL(`${store.prefix}a`)
    assert.ok(ttl > HOUR - 60_000 && ttl <= HOUR, `${ttl} ms`)
    await store.close()
  })

  test("what others have written comes with the reply, and is merged", async () => {
    const store = open()
    const others = (key) => server.client.set(key, JSON.stringify({ cookie: cookie(), n: 0, m: 1 }))
    // The one that found it, and the one that wrote the merged session.
    assert.deepEqual(await save(store, { n: 1 }, others), { set: 2 })
    const { n, m } = await store.get("a")
    assert.deepEqual({ n, m }, { n: 1, m: 1 })
    await store.close()
  })

  test("a session that was destroyed stays so, one that was evicted is saved", async () => {
    const store = open()
    await save(store, { n: 1 }, () => store.destroy("a"))
    assert.equal(await store.get("a"), null)
    await save(store, { n: 1 }, (key) => server.client.del(key))
    assert.equal((await store.get("a")).n, 1)
    await store.close()
  })

  test("one that is gone when it is saved leaves what is written behind it alone", async () => {
    for (const onConflict of ["merge", "error"]) {
      const store = open({ onConflict })
      const told = []
      store.on("conflict", ({ kind }) => told.push(kind))
      await store.set("a", { cookie: cookie(), n: 0 })
      const session = await load(store)
      await store.destroy("a")
      const fresh = { cookie: cookie(), owner: "fresh" }
      await Promise.all([store.set("a", Object.assign(session, { stale: true })), store.set("a", fresh)])
      assert.deepEqual(await store.get("a"), fresh)
      await until("the event", () => told.length > 0)
      assert.deepEqual(told, ["destroyed"])
      await store.close()
    }
  })

  test("a save whose answer was lost is no conflict", async () => {
    const proxy = await startProxy(server.port)
    const store = open({ url: proxy.url, onConflict: "error" })
    await save(store, { n: 1 }, (key) => {
      // The SET arrives, its answer does not.
      const sets = server.client.get(key)
      proxy.replies = () => {
        proxy.replies = undefined
        proxy.reset()
        return []
      }
      return sets
    })
    assert.equal(store.stats().reconnects, 1)
    assert.equal((await store.get("a")).n, 1)
    await store.close()
    proxy.stop()
  })

  test("races, lifetimes, markers and the model hold there as well", async () => {
    const files = ["52.races", "53.lifetimes", "54.model", "64.markers"].map((name) => `${name}.test.mjs`)
    const env = { ...process.env, CONNECT_REDIS_NATIVE_SERVER: valkey.binary }
    delete env.NODE_TEST_CONTEXT
    const args = ["--test", "--test-reporter=spec", "--test-concurrency=1", ...files]
    const child = spawn(process.execPath, args, { cwd: fileURLToPath(new URL(".", import.meta.url)), env })
    let said = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data))
    const [code] = await once(child, "close")
    assert.equal(code, 0, said)
    assert.match(said, /pass [1-9]/)
  })
})

test("a server that says it is one of them, and is not, is asked by the script", async (t) => {
  await own.client.set("probe", "a")
  const knows = await own.client.sendCommand(["SET", "probe", "b", "IFEQ", "a"]).catch(() => "no")
  if (knows === "OK") return t.skip("this server is one of them")
  const proxy = await startProxy(own.port)
  const lie = (data) => data.toString("latin1").replaceAll(/(redis|valkey)_version:\d/g, "$1_version:9")
  proxy.replies = (data) => [Buffer.from(lie(data), "latin1")]
  const store = new RedisStore({ url: proxy.url, prefix: ownPrefix(), onConflict: "merge" })
  assert.deepEqual(await save(store, { n: 1 }), { evalsha: 1 })
  assert.equal((await store.get("a")).n, 1)
  await store.close()
  proxy.stop()
})
