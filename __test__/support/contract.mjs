// The behaviour of every store, native or delegating.
import assert from "node:assert/strict"
import { after, before, describe, test as nodeTest } from "node:test"

import session from "express-session"

import { called } from "../../testing/until.mjs"
import { note } from "./matrix.mjs"
import { ownPrefix } from "./servers.mjs"

const cookie = (expires) => ({ originalMaxAge: null, expires })
const soon = (ms) => new Date(Date.now() + ms)

/**
 * Tests `RedisStore` with the connection options of `source()`: `{options, close}`. `pttl(key)` asks the
 * server. `native` is the expected value of `store.native`, if the store has it. `always` are options of every store,
 * and `handleOf(sid)` is the name that they give to a session id.
 */
export function contract(name, { RedisStore, source, pttl, native, always = {}, handleOf = (sid) => sid }) {
  describe(name, () => {
    let made
    let tests = 0
    let passed = 0
    const opened = []
    const test = (title, body) => {
      tests++
      nodeTest(title, async () => {
        await body()
        passed++
      })
    }
    before(async () => {
      made = await source()
    })
    after(async () => {
      await Promise.all(opened.map((store) => store.close?.()))
      await made.close?.()
      note("contract", { name, way: native === undefined ? "" : native ? "native" : "delegated", passed, tests })
    })
    const open = (options) => {
      // A busy machine needs more than the default deadline for hundreds of requests.
      const shared = { prefix: ownPrefix(), commandTimeoutMs: 20_000, ...always }
      const store = new RedisStore({ ...made.options, ...shared, ...options })
      opened.push(store)
      return store
    }
    const ttl = (store, sid) => pttl(store.prefix + handleOf(sid), made.options.client)

    if (native !== undefined) {
      test("reports whether it is native", () => assert.equal(open().native, native))

      test("a loaded session is saved only if it still exists", async () => {
        const store = open()
        const load = async () => store.createSession({ sessionID: "a", sessionStore: store }, await store.get("a"))
        await store.set("a", { cookie: cookie(soon(60_000)) })
        const loaded = await load()
        loaded.n = 1
        await store.set("a", loaded)
        assert.equal((await store.get("a")).n, 1)
        await store.destroy("a")
        await store.set("a", loaded)
        assert.equal(await store.get("a"), null)
      })

      test("freshExpires returns the expiry after a touch", async () => {
        const names = ["pttl", "pTTL"]
        if (!native && !names.some((name) => typeof made.options.client[name] === "function")) {
          return assert.throws(() => open({ freshExpires: true }), { name: "TypeError", message: /pttl/ })
        }
        const store = open({ freshExpires: true })
        await store.set("a", { cookie: cookie(soon(60_000)) })
        await store.touch("a", { cookie: cookie(soon(600_000)) })
        const { expires } = (await store.get("a")).cookie
        assert.ok(new Date(expires) - Date.now() > 500_000, String(expires))
        assert.equal(await store.get("b"), null)
      })

      test("options that compare stored sessions need a native connection", () => {
        for (const [name, value] of [
          ["onConflict", "merge"],
          ["maxLifetime", 60],
        ]) {
          if (native) open({ [name]: value })
          else assert.throws(() => open({ [name]: value }), { name: "TypeError", message: new RegExp(`"${name}"`) })
        }
      })
    }

    test("has connect-redis's fields and defaults", () => {
      const { prefix, ...store } = new RedisStore(made.options)
      assert.equal(prefix, "sess:")
      assert.equal(store.ttl, 86400)
      assert.equal(store.scanCount, 100)
      assert.equal(store.serializer, JSON)
      assert.equal(store.disableTTL, false)
      assert.equal(store.disableTouch, false)
      assert.equal(store.client, made.options.client)
    })

    test("is a Store of express-session", () => assert.ok(open() instanceof session.Store))

    test("a session comes back as it was stored", async () => {
      const store = open()
      const stored = { cookie: cookie(), user: { name: "Zoë 🦀" }, list: [1, null, "two"] }
      assert.equal(await store.set("sid", stored), null)
      assert.deepEqual(await store.get("sid"), JSON.parse(JSON.stringify(stored)))
      assert.deepEqual(await called((done) => store.get("sid", done)), [null, await store.get("sid")])
    })

    test("a miss is null, by promise and by callback", async () => {
      const store = open()
      assert.equal(await store.get("none"), null)
      assert.deepEqual(await called((done) => store.get("none", done)), [null, null])
    })

    test("set, touch, destroy and clear call back with null", async () => {
      const store = open()
      const data = { cookie: cookie() }
      assert.deepEqual(await called((done) => store.set("sid", data, done)), [null, null])
      assert.deepEqual(await called((done) => store.touch("sid", data, done)), [null, null])
      assert.deepEqual(await called((done) => store.destroy("sid", done)), [null, null])
      assert.deepEqual(await called((done) => store.clear(done)), [null, null])
      assert.equal(await store.get("sid"), null)
    })

    test("without cookie.expires a session lives for ttl", async () => {
      const store = open({ ttl: 50 })
      await store.set("sid", { cookie: cookie() })
      const left = await ttl(store, "sid")
      assert.ok(left > 40_000 && left <= 50_000, `${left} ms`)
    })

    test("a ttl function decides for each session", async () => {
      const store = open({ ttl: (data) => data.seconds })
      await store.set("a", { cookie: cookie(), seconds: 20 })
      await store.set("b", { cookie: cookie(soon(500_000)), seconds: 30 })
      const [a, b] = [await ttl(store, "a"), await ttl(store, "b")]
      assert.ok(a > 10_000 && a <= 20_000, `${a} ms`)
      assert.ok(b > 20_000 && b <= 30_000, `${b} ms`)
    })

    test("cookie.expires decides otherwise, as a Date or as text", async () => {
      const store = open()
      await store.set("a", { cookie: cookie(soon(40_000)) })
      await store.set("b", { cookie: cookie(soon(40_000).toISOString()) })
      for (const sid of ["a", "b"]) {
        const left = await ttl(store, sid)
        assert.ok(left > 30_000 && left <= 41_000, `${left} ms`)
      }
    })

    test("touch moves the expiry and nothing else", async () => {
      const store = open()
      await store.set("sid", { cookie: cookie(soon(10_000)), n: 1 })
      await store.touch("sid", { cookie: cookie(soon(90_000)), n: 2 })
      const left = await ttl(store, "sid")
      assert.ok(left > 80_000 && left <= 91_000, `${left} ms`)
      assert.equal((await store.get("sid")).n, 1)
      assert.equal(await store.touch("none", { cookie: cookie(soon(90_000)) }), null)
      assert.equal(await store.get("none"), null)
    })

    test("an expiry in the past destroys, by set and by touch", async () => {
      const store = open()
      for (const method of ["set", "touch"]) {
        await store.set("sid", { cookie: cookie(soon(60_000)) })
        assert.equal(await store[method]("sid", { cookie: cookie(soon(-60_000)) }), null)
        assert.equal(await store.get("sid"), null)
      }
    })

    test("disableTouch and disableTTL leave the expiry alone", async () => {
      const untouched = open({ disableTouch: true })
      await untouched.set("sid", { cookie: cookie(soon(20_000)) })
      assert.equal(await untouched.touch("sid", { cookie: cookie(soon(90_000)) }), null)
      assert.ok((await ttl(untouched, "sid")) <= 21_000)
      const eternal = open({ disableTTL: true, maxLifetime: null })
      await eternal.set("sid", { cookie: cookie(soon(20_000)) })
      assert.equal(await eternal.touch("sid", { cookie: cookie(soon(20_000)) }), null)
      assert.equal(await ttl(eternal, "sid"), -1)
    })

    test("length, ids and all return this store's sessions only", async () => {
      const [store, other] = [open(), open()]
      await Promise.all([other.set("x", { cookie: cookie() }), store.set("a", { cookie: cookie(), n: 1 })])
      await store.set("b", { cookie: cookie(), n: 2 })
      assert.equal(await store.length(), 2)
      assert.deepEqual((await store.ids()).toSorted(), ["a", "b"].map(handleOf).toSorted())
      const all = (await store.all()).toSorted((a, b) => a.n - b.n)
      assert.deepEqual(
        all.map(({ id, n }) => [id, n]),
        [
          [handleOf("a"), 1],
          [handleOf("b"), 2],
        ],
      )
      assert.deepEqual(await called((done) => store.length(done)), [null, 2])
      await store.clear()
      assert.deepEqual([await store.length(), await store.ids(), await store.all()], [0, [], []])
      assert.equal(await other.length(), 1)
    })

    test("1500 sessions are counted, listed and cleared", async () => {
      const store = open()
      const ids = Array.from({ length: 1500 }, (_, n) => `s${n}`)
      await Promise.all(ids.map((sid) => store.set(sid, { cookie: cookie(), sid })))
      assert.equal(await store.length(), 1500)
      assert.deepEqual((await store.ids()).toSorted(), ids.map(handleOf).toSorted())
      assert.ok((await store.all()).every((found) => found.id === handleOf(found.sid)))
      await store.clear()
      assert.equal(await store.length(), 0)
    })

    test("a custom serializer is used in both directions, and parse may be async", async () => {
      const serializer = {
        stringify: (data) => `v1${JSON.stringify(data)}`,
        parse: async (text) => JSON.parse(text.slice(2)),
      }
      // What is no JSON cannot be merged or bounded.
      const store = open({ serializer, onConflict: null, maxLifetime: null })
      await store.set("sid", { cookie: cookie(), n: 7 })
      assert.equal((await store.get("sid")).n, 7)
    })

    test("the fields may be changed later", async () => {
      const store = open()
      await store.set("sid", { cookie: cookie() })
      const before = store.prefix
      store.prefix = ownPrefix()
      assert.equal(await store.get("sid"), null)
      store.prefix = before
      store.ttl = 30
      await store.set("sid", { cookie: cookie() })
      assert.ok((await ttl(store, "sid")) <= 30_000)
    })

    test("requests on one session keep their order", async () => {
      // With maxLifetime the save of an object that was not loaded asks first when the stored one was created.
      // With userOf the first save in a cluster writes the entry of the session first.
      const store = open({ maxLifetime: null, userOf: null, sessionInfo: null })
      const seen = []
      const rounds = Array.from({ length: 200 }, (_, n) => [
        store.set("sid", { cookie: cookie(), n }),
        store.get("sid").then((found) => seen.push(found.n)),
      ])
      await Promise.all(rounds.flat())
      assert.deepEqual(
        seen,
        Array.from({ length: 200 }, (_, n) => n),
      )
    })

    test("load and createSession of express-session work", async () => {
      const store = open()
      await store.set("sid", { cookie: { originalMaxAge: 1000, expires: soon(60_000) }, n: 3 })
      const [error, loaded] = await called((done) => store.load("sid", done))
      assert.equal(error, null)
      assert.equal(loaded.n, 3)
      assert.equal(loaded.id, "sid")
      assert.ok(loaded.cookie instanceof session.Cookie)
    })
  })
}
