import assert from "node:assert/strict"
import { describe, test } from "node:test"

import * as original from "connect-redis"
import express from "express"
import session from "express-session"

import { RedisStore } from "../index.mjs"
import { called, until } from "../testing/until.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { startProxy } from "../testing/proxy.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { browser, serve } from "./support/web.mjs"

const server = ownServer()
const ROUNDS = 200
const HOUR = 3_600_000

const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
const cookie = (ms = HOUR) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })

/** A session as a request has it, loaded from `store`. */
async function load(store, sid = "a") {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

const withoutCookie = ({ cookie: _cookie, ...session }) => session

/** The conflicts that `store` emits. */
function conflictsOf(store) {
  const told = []
  store.on("conflict", (conflict) => told.push(conflict))
  return told
}

/** An app whose requests wait with loaded sessions until the test releases them. */
async function startApp(store, t) {
  let waiting = []
  const app = express()
  app.use(session({ store, secret: "test", resave: false, saveUninitialized: false, cookie: { maxAge: HOUR } }))
  app.get("/sign-in", (req, res) => {
    req.session.user = "ada"
    res.json({ sid: req.sessionID })
  })
  app.get("/sign-out", (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.json({}))))
  app.get("/add/:key", async (req, res) => {
    await new Promise((resolve) => waiting.push(resolve))
    req.session[req.params.key] = true
    res.json({})
  })
  const { url, close } = await serve(app)
  t.after(close)
  return {
    url,
    /** Waits until `count` requests wait, and returns the function that releases them. */
    arrived: async (count) => {
      await until(`${count} requests`, () => waiting.length === count)
      const release = waiting
      waiting = []
      return () => release.forEach((go) => go())
    },
  }
}

/**
 * Rounds in which a session is destroyed while another request works on it. Returns the number of sessions that
 * came back.
 */
async function slowRequestAndLogout(store, t) {
  const app = await startApp(store, t)
  let revived = 0
  for (let round = 0; round < ROUNDS; round++) {
    const user = browser(app.url)
    const { sid } = await user.go("/sign-in")
    const slow = user.go("/add/key")
    const release = await app.arrived(1)
    await user.go("/sign-out")
    release()
    assert.equal((await slow).status, 200)
    if ((await store.get(sid)) !== null) revived++
  }
  return revived
}

/** Rounds in which `count` parallel requests add a key each. Returns the smallest number of keys that survived. */
async function parallelRequests(store, t, { rounds, count }) {
  const app = await startApp(store, t)
  let fewest = count
  for (let round = 0; round < rounds; round++) {
    const user = browser(app.url)
    const { sid } = await user.go("/sign-in")
    const adding = Array.from({ length: count }, (_, n) => user.go(`/add/key${n}`))
    const release = await app.arrived(count)
    release()
    for (const { status } of await Promise.all(adding)) assert.equal(status, 200)
    const keys = Object.keys(await store.get(sid)).filter((key) => key.startsWith("key"))
    fewest = Math.min(fewest, keys.length)
  }
  return fewest
}

describe(`over HTTP, ${ROUNDS} rounds`, () => {
  test("a slow request never brings back a session that a logout destroyed", async (t) => {
    const store = open()
    const told = conflictsOf(store)
    assert.equal(await slowRequestAndLogout(store, t), 0)
    assert.equal(told.length, ROUNDS)
    await store.close()
  })

  test("with connect-redis 10 nearly all sessions come back", async (t) => {
    const store = new original.RedisStore({ client: server.client, prefix: ownPrefix() })
    const revived = await slowRequestAndLogout(store, t)
    assert.ok(revived > 0.9 * ROUNDS, `${revived} of ${ROUNDS}`)
  })

  test("with merge, every key that parallel requests add survives", async (t) => {
    const store = open({ onConflict: "merge" })
    assert.equal(await parallelRequests(store, t, { rounds: ROUNDS, count: 4 }), 4)
    assert.equal(await parallelRequests(store, t, { rounds: ROUNDS / 10, count: 16 }), 16)
    await store.close()
  })

  test("without merge the last one wins, as in connect-redis 10", async (t) => {
    const ours = open()
    assert.equal(await parallelRequests(ours, t, { rounds: 5, count: 4 }), 1)
    await ours.close()
    const theirs = new original.RedisStore({ client: server.client, prefix: ownPrefix() })
    assert.equal(await parallelRequests(theirs, t, { rounds: 5, count: 4 }), 1)
  })
})

describe("a destroyed session stays destroyed", () => {
  test("a loaded session is written only if it still exists", async () => {
    const store = open()
    const told = conflictsOf(store)
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    await store.destroy("a")
    assert.deepEqual(await called((done) => store.set("a", loaded, done)), [null, null])
    assert.equal(await store.get("a"), null)
    await until("the event", () => told.length === 1)
    assert.deepEqual(told, [{ kind: "destroyed", sidHash: told[0].sidHash }])
    assert.match(told[0].sidHash, /^[0-9a-f]{8}$/)
    await store.close()
  })

  test("a saved session is written again only if it still exists", async () => {
    const store = open()
    const req = { sessionID: "new", sessionStore: store }
    const fresh = new session.Session(req)
    fresh.cookie = new session.Cookie({ maxAge: HOUR })
    await store.set("new", fresh)
    await store.set("new", fresh)
    assert.notEqual(await store.get("new"), null)
    await store.destroy("new")
    await store.set("new", fresh)
    assert.equal(await store.get("new"), null)
    await store.close()
  })

  test("a session that expired or was evicted while the request ran is written, as by connect-redis", async () => {
    for (const onConflict of ["overwrite", "merge", "error"]) {
      const store = open({ onConflict })
      const told = conflictsOf(store)
      for (const remove of ["del", "unlink", "flushAll"]) {
        await store.set("a", { cookie: cookie() })
        const loaded = await load(store)
        if (remove === "flushAll") await server.client.flushAll()
        else await server.client[remove](`${store.prefix}a`)
        loaded.n = remove
        await store.set("a", loaded)
        assert.equal((await store.get("a")).n, remove)
      }
      assert.deepEqual(told, [])
      await store.close()
    }
  })

  test("an object that the store never loaded is always written, and so is a loaded session under another id", async () => {
    const store = open()
    const plain = { cookie: cookie() }
    for (const sid of ["a", "b"]) {
      await store.set(sid, plain)
      await store.destroy(sid)
      await store.set(sid, plain)
      assert.notEqual(await store.get(sid), null)
    }
    await store.set("c", await load(store, "a"))
    assert.notEqual(await store.get("c"), null)
    await store.close()
  })

  test("onDestroyed: save after a conflict ends by the deadline of the save", async () => {
    const proxy = await startProxy(server.port)
    const store = open({ url: proxy.url, onConflict: "merge", onDestroyed: "save", commandTimeoutMs: 300 })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    await server.client.del(`${store.prefix}a`)
    // The first reply arrives, the reply to the next command does not.
    proxy.replies = (data) => {
      proxy.replies = () => []
      return [data]
    }
    await assert.rejects(store.set("a", loaded), {
      code: "ERR_REDIS_STORE_TIMEOUT",
      message: /could not be resolved within 300 ms/,
    })
    await store.close()
    proxy.stop()
  })

  test("onDestroyed: save writes it, as by connect-redis", async () => {
    for (const onConflict of ["overwrite", "merge", "error"]) {
      const store = open({ onDestroyed: "save", onConflict })
      await store.set("a", { cookie: cookie() })
      const loaded = await load(store)
      await store.destroy("a")
      await store.set("a", loaded)
      assert.notEqual(await store.get("a"), null)
      await store.close()
    }
  })
})

describe("two requests that change one session", () => {
  /**
   * Both requests load the session, then both save it. Returns the result of the second save and the stored
   * session.
   */
  async function race(store, first, second, stored = {}) {
    await store.set("a", { cookie: cookie(), ...stored })
    const one = await load(store)
    const other = await load(store)
    first(one)
    second(other)
    await store.set("a", one)
    const [error] = await called((done) => store.set("a", other, done))
    const now = withoutCookie(await store.get("a"))
    return { error, now, other }
  }

  test("merge keeps both changes, and names the paths that both had changed", async () => {
    const store = open({ onConflict: "merge" })
    const told = conflictsOf(store)
    const { error, now, other } = await race(
      store,
      (one) => Object.assign(one, { mine: 1, both: { x: 1, list: [1] } }),
      (two) => Object.assign(two, { theirs: 2, both: { x: 1, list: [2] } }),
      { both: { x: 1, list: [] } },
    )
    assert.equal(error, null)
    assert.deepEqual(now, { mine: 1, theirs: 2, both: { x: 1, list: [2] } })
    await until("the event", () => told.length === 1)
    assert.deepEqual(told[0], { kind: "merged", sidHash: told[0].sidHash, paths: ["both.list"] })

    // The merged changes are not in this request's session, and saving it again does not remove them.
    other.more = 3
    await store.set("a", other)
    const later = withoutCookie(await store.get("a"))
    assert.deepEqual(later, { ...now, more: 3 })
    await store.close()
  })

  test("error refuses the second write, and the first one's value stays", async () => {
    const store = open({ onConflict: "error" })
    const told = conflictsOf(store)
    const { error, now } = await race(
      store,
      (one) => (one.n = 1),
      (two) => (two.n = 2),
    )
    assert.equal(error.code, "ERR_REDIS_STORE_CONFLICT")
    assert.deepEqual(now, { n: 1 })
    await until("the event", () => told.length === 1)
    assert.equal(told[0].kind, "refused")
    await store.close()
  })

  test("a function decides, also asynchronously, and receives the loaded session and both changed ones", async () => {
    const seen = []
    const onConflict = async (base, mine, theirs) => {
      seen.push([base.n, mine.n, theirs.n])
      return { ...theirs, n: base.n + (mine.n - base.n) + (theirs.n - base.n) }
    }
    const store = open({ onConflict })
    const { error, now } = await race(
      store,
      (one) => (one.n += 10),
      (two) => (two.n += 1),
      { n: 100 },
    )
    assert.equal(error, null)
    assert.deepEqual(now, { n: 111 })
    assert.deepEqual(seen, [[100, 101, 110]])
    await store.close()
  })

  test("an error of the function is the request's error, and nothing is written", async () => {
    const failure = new Error("no idea")
    for (const onConflict of [
      () => {
        throw failure
      },
      () => Promise.reject(failure),
    ]) {
      const store = open({ onConflict })
      const { error, now } = await race(
        store,
        (one) => (one.n = 1),
        (two) => (two.n = 2),
      )
      assert.equal(error, failure)
      assert.deepEqual(now, { n: 1 })
      await store.close()
    }
  })

  test("a destroyed session stays destroyed with every onConflict", async () => {
    for (const onConflict of ["merge", "error", (_base, mine) => mine]) {
      const store = open({ onConflict })
      await store.set("a", { cookie: cookie() })
      const one = await load(store)
      const other = await load(store)
      one.n = 1
      await store.set("a", one)
      await store.destroy("a")
      other.n = 2
      assert.deepEqual(await called((done) => store.set("a", other, done)), [null, null])
      assert.equal(await store.get("a"), null)
      await store.close()
    }
  })

  test("the cookie is that of the later expiry, and the key lives as long", async () => {
    const store = open({ onConflict: "merge" })
    await store.set("a", { cookie: cookie() })
    const one = await load(store)
    const other = await load(store)
    one.cookie.maxAge = 10 * HOUR
    one.n = 1
    other.m = 2
    await store.set("a", one)
    await store.set("a", other)
    const now = await store.get("a")
    assert.deepEqual([now.n, now.m, now.cookie.originalMaxAge], [1, 2, 10 * HOUR])
    assert.ok((await server.client.pTTL(`${store.prefix}a`)) > 9 * HOUR)
    await store.close()
  })

  test("two saves of one session that do not wait for each other do not conflict", async () => {
    for (const onConflict of ["merge", "error", (_base, mine) => mine]) {
      const store = open({ onConflict })
      const told = conflictsOf(store)
      await store.set("a", { cookie: cookie(), flash: "gone soon" })
      const loaded = await load(store)
      loaded.a = 1
      const first = store.set("a", loaded)
      delete loaded.flash
      loaded.b = 2
      await Promise.all([first, store.set("a", loaded)])
      assert.deepEqual(withoutCookie(await store.get("a")), { a: 1, b: 2 })
      assert.deepEqual(told, [])
      await store.close()
    }
  })

  test("a function that never answers is a TIMEOUT, and keeps no other save waiting", async () => {
    let calls = 0
    const onConflict = (_base, mine) => (++calls === 1 ? new Promise(() => {}) : mine)
    const store = open({ onConflict, commandTimeoutMs: 300 })
    await store.set("a", { cookie: cookie() })
    const sessions = await Promise.all([load(store), load(store)])
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie(), other: true }))
    sessions[0].n = 1
    await assert.rejects(store.set("a", sessions[0]), { code: "ERR_REDIS_STORE_TIMEOUT" })
    sessions[1].n = 2
    await store.set("a", sessions[1])
    assert.equal((await store.get("a")).n, 2)
    await store.close()
  })

  test("close waits for a conflict that is being resolved, and accepts no more requests", async () => {
    let decide
    const onConflict = (_base, mine) => new Promise((resolve) => (decide = () => resolve({ ...mine, decided: true })))
    const store = open({ onConflict })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie(), other: true }))
    const saved = store.set("a", loaded)
    await until("the conflict", () => decide !== undefined)
    let closed = false
    const closing = store.close().then(() => (closed = true))
    await assert.rejects(store.get("a"), { code: "ERR_REDIS_STORE_CLOSED" })
    assert.equal(closed, false)
    decide()
    await Promise.all([saved, closing])
    const stored = JSON.parse(await server.client.get(`${store.prefix}a`))
    assert.equal(stored.decided, true)
  })

  test("two stores merge as one does", async () => {
    const prefix = ownPrefix()
    const stores = Array.from({ length: 4 }, () => open({ prefix, onConflict: "merge" }))
    await stores[0].set("a", { cookie: cookie() })
    const sessions = await Promise.all(stores.map((store) => load(store)))
    sessions.forEach((own, n) => (own[`key${n}`] = n))
    await Promise.all(stores.map((store, n) => store.set("a", sessions[n])))
    const now = withoutCookie(await stores[0].get("a"))
    assert.deepEqual(now, { key0: 0, key1: 1, key2: 2, key3: 3 })
    await Promise.all(stores.map((store) => store.close()))
  })

  test("the script is sent again to a server that has forgotten it", async () => {
    const store = open({ onConflict: "merge" })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    await server.client.sendCommand(["SCRIPT", "FLUSH"])
    loaded.n = 1
    await store.set("a", loaded)
    assert.equal((await store.get("a")).n, 1)
    await store.close()
  })

  test("a text that is not a JSON object cannot be merged, and stays as it is", async () => {
    const store = open({ onConflict: "merge" })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    await server.client.set(`${store.prefix}a`, "[]")
    await assert.rejects(store.set("a", loaded), { code: "ERR_REDIS_STORE_CONFLICT" })
    assert.equal(await server.client.get(`${store.prefix}a`), "[]")
    await store.close()
  })

  test("merge with a serializer that does not write JSON is an option error at the first set", async () => {
    const serializer = { stringify: (value) => `x${JSON.stringify(value)}`, parse: (text) => JSON.parse(text.slice(1)) }
    const store = open({ onConflict: "merge", serializer })
    await assert.rejects(store.set("a", { cookie: cookie() }), {
      code: "ERR_REDIS_STORE_OPTIONS",
      message: /"onConflict"/,
    })
    await store.close()
    const deciding = open({ onConflict: (_base, mine, theirs) => ({ ...theirs, ...mine }), serializer })
    const { now } = await race(
      deciding,
      (one) => (one.n = 1),
      (two) => (two.m = 2),
    )
    assert.deepEqual(now, { n: 1, m: 2 })
    await deciding.close()
  })

  test("a cluster merges as well", async (t) => {
    const cluster = await startCluster({ replicas: 0 })
    t.after(() => cluster.stop())
    const store = new RedisStore({ nodes: cluster.nodes, prefix: ownPrefix(), onConflict: "merge" })
    await Promise.all(
      Array.from({ length: 20 }, async (_, n) => {
        const sid = `s${n}`
        await store.set(sid, { cookie: cookie() })
        const [one, other] = [await load(store, sid), await load(store, sid)]
        one.n = 1
        other.m = 2
        await Promise.all([store.set(sid, one), store.set(sid, other)])
        const now = withoutCookie(await store.get(sid))
        assert.deepEqual(now, { n: 1, m: 2 })
      }),
    )
    await store.close()
  })
})
