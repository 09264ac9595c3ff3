// Sessions that a stolen Redis does not give away.
import assert from "node:assert/strict"
import { AsyncLocalStorage } from "node:async_hooks"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { EVERYTHING, KEYS, SEALED, handleOf } from "./support/sealed.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })
const opened = []
const open = (options) => {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
  opened.push(store)
  return store
}
const [NEW, OLD] = KEYS
const encrypted = (keys, plaintext) => ({ encryption: { keys, plaintext } })
const decode = (named) => (error) => {
  assert.equal(error.code, "ERR_REDIS_STORE_DECODE")
  assert.match(error.message, named)
  return true
}

async function load(store, sid = "a") {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

describe("encryption", () => {
  test("what is stored is text that names its key and shows nothing else", async () => {
    const store = open(encrypted(KEYS))
    await store.set("a", { cookie: cookie(), secret: "canary" })
    const stored = await server.client.get(`${store.prefix}a`)
    assert.match(stored, /^~1s\.new\.[\w-]+$/)
    assert.equal((await store.get("a")).secret, "canary")
    assert.equal((await store.all())[0].secret, "canary")
  })

  test("every changed character, every cut, and a value of another session are refused", async () => {
    const store = open(encrypted(KEYS, "reject"))
    await store.set("a", { cookie: cookie(), n: 1 })
    const at = `${store.prefix}a`
    const stored = await server.client.get(at)
    const wrong = [stored.slice(0, -1), stored.slice(0, 20), stored.slice(0, 8), `${stored}A`, "~1s.", "~1s.new", "{}"]
    for (let i = 0; i < stored.length; i++) {
      const other = stored[i] === "A" ? "B" : "A"
      wrong.push(stored.slice(0, i) + other + stored.slice(i + 1))
    }
    for (const value of wrong) {
      await server.client.set(at, value)
      await assert.rejects(store.get("a"), { code: "ERR_REDIS_STORE_DECODE" }, value)
      assert.equal(await server.client.get(at), value)
    }
    await server.client.set(`${store.prefix}b`, stored)
    await assert.rejects(store.get("b"), decode(/"new".*another key/))
    await server.client.set(at, stored)
    assert.equal((await store.get("a")).n, 1)
  })

  test("an unknown key is named, is no miss, and ends no session", async () => {
    const prefix = ownPrefix()
    const writer = open({ prefix, ...encrypted([NEW]) })
    const reader = open({ prefix, ...encrypted([OLD]) })
    const plain = open({ prefix })
    await writer.set("a", { cookie: cookie(), n: 1 })
    for (const store of [reader, plain]) await assert.rejects(store.get("a"), decode(/key "new"/))
    for (const onConflict of ["merge", "error"]) {
      await assert.rejects(open({ prefix, onConflict, ...encrypted([OLD]) }).get("a"), decode(/key "new"/))
    }
    assert.equal((await writer.get("a")).n, 1)
  })

  test("all keys open, the first seals", async () => {
    const prefix = ownPrefix()
    const [before, between, after] = [[OLD], [OLD, NEW], [NEW, OLD]].map((keys) => open({ prefix, ...encrypted(keys) }))
    await before.set("a", { cookie: cookie(), n: 1 })
    assert.equal((await after.get("a")).n, 1)
    await after.set("a", { cookie: cookie(), n: 2 })
    assert.match(await server.client.get(`${prefix}a`), /^~1s\.new\./)
    assert.equal((await between.get("a")).n, 2)
    await assert.rejects(before.get("a"), decode(/key "new"/))
  })

  test("plain text is accepted, rejected or written", async () => {
    for (const [plaintext, reads, writes] of [
      [undefined, true, false],
      ["accept", true, false],
      ["reject", false, false],
      ["write", true, true],
    ]) {
      const store = open(encrypted([NEW], plaintext))
      const at = `${store.prefix}a`
      await server.client.set(at, JSON.stringify({ cookie: cookie(), n: 1 }))
      if (reads) {
        const loaded = await load(store)
        loaded.n = 2
        await store.set("a", loaded)
        assert.equal((await store.get("a")).n, 2)
      } else {
        await assert.rejects(store.get("a"), decode(/not encrypted/))
        await store.set("a", { cookie: cookie() })
      }
      assert.equal((await server.client.get(at)).startsWith("{"), writes)
    }
  })

  test("the key prefix of a client belongs to the key, however the value is sealed", async () => {
    const client = await createClient({ url: server.url, keyPrefix: "app:" }).connect()
    const prefix = ownPrefix()
    for (const onConflict of ["overwrite", "merge"]) {
      const own = new RedisStore({ client, prefix, onConflict, ...encrypted(KEYS) })
      const whole = open({ prefix: `app:${prefix}`, ...encrypted(KEYS) })
      await own.set("a", { cookie: cookie(), onConflict })
      assert.equal((await whole.get("a")).onConflict, onConflict)
      const loaded = await load(own)
      loaded.more = true
      await own.set("a", loaded)
      assert.equal((await own.get("a")).more, true)
      const moved = open({ prefix, ...encrypted(KEYS) })
      await server.client.set(`${prefix}a`, await server.client.get(`app:${prefix}a`))
      await assert.rejects(moved.get("a"), { code: "ERR_REDIS_STORE_DECODE" })
      await own.close()
    }
    await client.close()
  })

  test("keys may be bytes or base64; what is no key is refused without a word of it", () => {
    const text = NEW.key.toString("base64")
    for (const bytes of [
      NEW.key,
      new Uint8Array(NEW.key),
      text,
      NEW.key.toString("base64url"),
      text.replace("=", ""),
    ]) {
      open(encrypted([{ id: "a", key: bytes }]))
    }
    const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
    for (const encryption of [
      secret,
      Buffer.from(secret),
      {},
      { keys: secret },
      { keys: [] },
      { keys: [secret] },
      { keys: [{ id: "a", key: secret }] },
      { keys: [{ id: "a", key: Buffer.alloc(31) }] },
      { keys: [{ id: "a", key: 7 }] },
      { keys: [{ id: "", key: NEW.key }] },
      { keys: [{ id: "a.b", key: NEW.key }] },
      { keys: [{ id: "a".repeat(33), key: NEW.key }] },
      { keys: [{ key: NEW.key }] },
      { keys: [NEW, NEW] },
      { keys: KEYS, plaintext: "no" },
    ]) {
      assert.throws(
        () => open({ encryption }),
        (error) => {
          assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
          assert.match(error.message, /^Option "encryption/)
          assert.ok(!error.message.includes(secret.slice(0, 8)) && !error.message.includes(text.slice(0, 8)))
          return true
        },
      )
    }
    for (const compression of [true, 100, {}, { minBytes: 0 }, { minBytes: "1" }]) {
      assert.throws(() => open({ compression }), { code: "ERR_REDIS_STORE_OPTIONS" })
    }
    assert.throws(() => open({ hashIds: "yes" }), { code: "ERR_REDIS_STORE_OPTIONS" })
  })

  test("the binary is needed from the start, and not by hashIds", () => {
    const script = `
      require("./lib/native/load.js").load = () => { throw Object.assign(new TypeError("none"), {code: "ERR_REDIS_STORE_OPTIONS"}) }
      const { RedisStore } = require("./index.js")
      const client = require("redis-mock").createClient()
      for (const option of [{ encryption: { keys: [{ id: "a", key: Buffer.alloc(32) }] } }, { compression: { minBytes: 1 } }]) {
        require("node:assert").throws(() => new RedisStore({ client, ...option }), { code: "ERR_REDIS_STORE_OPTIONS" })
      }
      new RedisStore({ client, hashIds: true }).set("a", { cookie: {} }, () => client.keys("*", (_, keys) => console.log(keys[0])))
    `
    const cwd = join(import.meta.dirname, "..")
    const said = execFileSync(process.execPath, ["-e", script], { cwd, encoding: "utf8" })
    assert.equal(said.trim(), `sess:${handleOf("a")}`)
  })
})

describe("keys that come later", () => {
  test("requests wait for them in their order, each in its own context", async () => {
    let give
    const store = open(encrypted(() => new Promise((resolve) => (give = () => resolve(KEYS)))))
    const context = new AsyncLocalStorage()
    const seen = []
    const session = { cookie: cookie(), n: 1 }
    const answers = [
      context.run("set", () => store.set("a", session, () => seen.push(context.getStore()))),
      store.set("b", session),
      store.get("b"),
      store.destroy("b"),
      store.get("b"),
      store.touch("a", session),
      store.all(),
    ]
    // What was to be saved was said by then.
    session.n = 2
    assert.equal(await server.client.exists(`${store.prefix}a`), 0)
    await until("the question", () => give)
    give()
    const [, , first, , second, , all] = await Promise.all(answers)
    assert.deepEqual([first.n, second, seen, all.length], [1, null, ["set"], 1])
    assert.equal((await store.get("a")).n, 1)
  })

  test("a promise of them will do", async () => {
    const store = open(encrypted(Promise.resolve(KEYS)))
    await store.set("a", { cookie: cookie() })
    assert.match(await server.client.get(`${store.prefix}a`), /^~1s\.new\./)
  })

  test("they are asked for again if that has failed", async () => {
    let asked = 0
    const store = open(
      encrypted(() => {
        asked++
        if (asked === 1) throw new Error("not yet")
        if (asked === 2) return [{ id: "short", key: Buffer.alloc(3) }]
        return KEYS
      }),
    )
    await store.set("a", { cookie: cookie(), n: 1 })
    assert.equal((await store.get("a")).n, 1)
    assert.equal(asked, 3)
  })

  test("a request waits no longer than its deadline, and is not made after that", async () => {
    let failure = () => new Promise(() => {})
    const store = open({ ...encrypted(() => failure()), commandTimeoutMs: 100, maxPending: 2 })
    const late = [store.set("a", { cookie: cookie() }), store.get("a")]
    await assert.rejects(store.get("a"), { code: "ERR_REDIS_STORE_QUEUE_FULL" })
    for (const request of late) {
      await assert.rejects(request, { code: "ERR_REDIS_STORE_TIMEOUT", message: /encryption/ })
    }
    failure = () => Promise.reject(new Error("the service is down"))
    await assert.rejects(
      until("the cause", async () => {
        try {
          await store.get("a")
        } catch (error) {
          if (error.cause?.message === "the service is down") throw error
        }
      }),
      { code: "ERR_REDIS_STORE_TIMEOUT" },
    )
    failure = () => KEYS
    assert.equal(
      await until("the keys", () =>
        store.get("a").then(
          () => true,
          () => false,
        ),
      ),
      true,
    )
    assert.equal(await store.get("a"), null)
    await store.close()
  })

  test("close() waits for what waits", async () => {
    const store = open(encrypted(async () => KEYS))
    const answer = store.set("a", { cookie: cookie() })
    await store.close()
    assert.equal(await answer, null)
  })

  test("a promise that is rejected fails requests at once", async () => {
    const store = open(encrypted(Promise.reject(new Error("no"))))
    const startedAt = performance.now()
    await assert.rejects(store.get("a"), (error) => error.cause.message === "no")
    assert.ok(performance.now() - startedAt < 2000)
  })
})

describe("hashIds", () => {
  test("keys, markers, ids and all() have the hash of an id", async () => {
    const store = open({ hashIds: true })
    await store.set("secret-id", { cookie: cookie(), n: 1 })
    assert.deepEqual(await store.ids(), [handleOf("secret-id")])
    assert.equal((await store.all())[0].id, handleOf("secret-id"))
    await store.destroy("secret-id")
    const keys = await server.client.keys(`${store.prefix}*`)
    assert.deepEqual(keys, [`${store.prefix}{${store.prefix}${handleOf("secret-id")}}`])
  })

  test("a handle ends its session and opens none", async () => {
    const store = open({ hashIds: true })
    await store.set("a", { cookie: cookie() })
    const loaded = await load(store)
    const [handle] = await store.ids()
    assert.equal(await store.get(handle), null)
    assert.equal(await store.destroyHandle(handle), true)
    assert.equal(await store.destroyHandle(handle), false)
    loaded.n = 1
    await store.set("a", loaded)
    assert.equal(await store.get("a"), null)
    for (const wrong of ["a", undefined, 7]) {
      await assert.rejects(store.destroyHandle(wrong), { code: "ERR_REDIS_STORE_OPTIONS" })
    }
    await assert.rejects(open().destroyHandle(handle), { code: "ERR_REDIS_STORE_OPTIONS" })
  })

  test("a session that was destroyed stays so, one that expired is saved", async () => {
    for (const options of [{ hashIds: true }, SEALED, EVERYTHING, { ...EVERYTHING, hashIds: "migrate" }]) {
      const store = open(options)
      for (const [sid, remove, comes] of [
        ["a", () => store.destroy("a"), false],
        ["b", () => server.client.del(store.prefix + handleOf("b")), true],
      ]) {
        await store.set(sid, { cookie: cookie() })
        const loaded = await load(store, sid)
        await remove()
        loaded.n = 1
        await store.set(sid, loaded)
        assert.equal((await store.get(sid)) !== null, comes)
      }
    }
  })
})

describe('hashIds "migrate"', () => {
  const plain = async (store, sid, session, PX = HOUR) => {
    await server.client.set(store.prefix + sid, JSON.stringify({ cookie: cookie(), ...session }), PX && { PX })
  }
  const names = async ({ prefix }) => (await server.client.keys(`${prefix}*`)).map((name) => name.slice(prefix.length))

  for (const [way, source] of [
    ["native", async () => ({ url: server.url, close: () => {} })],
    [
      "delegated",
      async () => {
        const { open: connect, close } = CLIENTS.find(({ name }) => name.startsWith("a Proxy around redis-4"))
        const client = await connect(server.url)
        return { client, close: () => close(client) }
      },
    ],
  ]) {
    for (const more of [{}, { encryption: { keys: KEYS } }]) {
      test(`a session is moved by its first get, with its time to live (${way}, ${Object.keys(more)})`, async () => {
        const { close, ...connection } = await source()
        const store = new RedisStore({ ...connection, prefix: ownPrefix(), hashIds: "migrate", ...more })
        await plain(store, "a", { n: 1 }, 50_000)
        const loaded = await load(store)
        assert.equal(loaded.n, 1)
        assert.deepEqual(await names(store), [handleOf("a")])
        const left = await server.client.pTTL(store.prefix + handleOf("a"))
        assert.ok(left > 40_000 && left <= 50_000, `${left}`)
        loaded.n = 2
        await store.set("a", loaded)
        assert.equal((await store.get("a")).n, 2)
        await plain(store, "for ever", {}, null)
        await store.get("for ever")
        assert.equal(await server.client.pTTL(store.prefix + handleOf("for ever")), -1)
        assert.equal(await store.get("none"), null)
        await store.close()
        await close()
      })

      test(`set, destroy and touch leave no other key (${way}, ${Object.keys(more)})`, async () => {
        const { close, ...connection } = await source()
        const store = new RedisStore({ ...connection, prefix: ownPrefix(), hashIds: "migrate", ...more })
        await plain(store, "a", { n: 1 })
        await store.set("a", { cookie: cookie(), n: 2 })
        assert.deepEqual(await names(store), [handleOf("a")])
        assert.equal((await store.get("a")).n, 2)
        await plain(store, "an-id", { n: 1 })
        await store.destroy("an-id")
        assert.ok(!(await names(store)).some((name) => name.includes("an-id")))
        assert.equal(await store.get("an-id"), null)
        await plain(store, "c", { n: 1 }, 10_000)
        await store.touch("c", { cookie: cookie() })
        assert.ok((await server.client.pTTL(store.prefix + handleOf("c"))) > 100_000)
        await store.set("a", { cookie: { expires: new Date(0).toISOString() } })
        assert.equal(await store.get("a"), null)
        await store.close()
        await close()
      })
    }
  }

  for (const onConflict of ["error", "merge"]) {
    test(`a session of all() that is not moved yet can be saved, onConflict ${onConflict}`, async () => {
      const old = open(encrypted(KEYS))
      await old.set("a", { cookie: cookie(), n: 1 })
      const store = open({ prefix: old.prefix, ...encrypted(KEYS), hashIds: "migrate", onConflict })
      const [data] = await store.all()
      const session = store.createSession({ sessionID: "a", sessionStore: store }, data)
      session.n = 2
      await store.set("a", session)
      assert.equal((await store.get("a")).n, 2)
    })
  }

  test("listings have handles, of sessions that are not moved too", async () => {
    const store = open({ hashIds: "migrate" })
    await plain(store, "a", {})
    await store.set("b", { cookie: cookie() })
    const handles = ["a", "b"].map(handleOf).toSorted()
    assert.deepEqual((await store.ids()).toSorted(), handles)
    assert.deepEqual((await store.all()).map(({ id }) => id).toSorted(), handles)
    assert.equal(await store.length(), 2)
    assert.equal(await store.destroyHandle(handleOf("a")), true)
    assert.equal(await store.destroyHandle(handleOf("b")), true)
    assert.equal(await store.length(), 0)
  })

  test("with freshExpires, merge and maxLifetime too", async () => {
    for (const options of [{ freshExpires: true }, { onConflict: "merge" }, { maxLifetime: 86_400 }, EVERYTHING]) {
      const encryption = options.encryption && { ...options.encryption, plaintext: "accept" }
      const store = open({ ...options, ...(encryption && { encryption }), hashIds: "migrate" })
      await plain(store, "a", { n: 1 })
      const [one, two] = [await load(store), await load(store)]
      one.n = 2
      two.m = 3
      await store.set("a", one)
      await store.set("a", two)
      const found = await store.get("a")
      assert.deepEqual([found.n, found.m], options.onConflict === "merge" ? [2, 3] : [1, 3])
    }
  })

  test("a hundred rounds of logout and get at once: none comes back", async () => {
    const prefix = ownPrefix()
    const [one, two] = [open({ prefix, hashIds: "migrate" }), open({ prefix, hashIds: "migrate" })]
    for (let round = 0; round < 100; round++) {
      const sid = `r${round}`
      await plain(one, sid, { n: 1 })
      await Promise.all([one.get(sid), two.destroy(sid), one.get(sid)])
      assert.equal(await two.get(sid), null)
    }
  })
})

describe('hashIds "prepare"', () => {
  test("sessions stay under their ids, and those that were moved are read, saved, touched and ended", async () => {
    for (const [options, more] of [
      [{}, {}],
      [{ onConflict: "merge" }, {}],
      [{ freshExpires: true }, { encryption: { keys: KEYS } }],
    ]) {
      const prefix = ownPrefix()
      const preparing = open({ prefix, hashIds: "prepare", ...options, ...more })
      const moving = open({ prefix, hashIds: "migrate", ...more })
      await preparing.set("a", { cookie: cookie(), n: 1 })
      assert.equal(await server.client.exists(`${prefix}a`), 1)
      const early = await load(preparing)
      assert.equal((await moving.get("a")).n, 1)
      assert.equal(await server.client.exists(`${prefix}a`), 0)
      early.n = 2
      await preparing.set("a", early)
      assert.equal((await moving.get("a")).n, 2)
      const late = await load(preparing)
      late.n = 3
      await preparing.set("a", late)
      await preparing.touch("a", { cookie: { expires: new Date(Date.now() + 3 * HOUR).toISOString() } })
      assert.ok((await server.client.pTTL(prefix + handleOf("a"))) > 2 * HOUR)
      assert.equal((await preparing.get("a")).n, 3)
      assert.equal(await server.client.exists(`${prefix}a`), 0)
      assert.equal((await preparing.all())[0].n, 3)
      const loaded = await load(preparing)
      await moving.destroy("a")
      await preparing.set("a", loaded)
      assert.equal(await preparing.get("a"), null)
      await moving.set("b", { cookie: cookie() })
      const other = await load(moving, "b")
      await preparing.destroy("b")
      await moving.set("b", other)
      assert.equal(await moving.get("b"), null)
      await preparing.set("c", { cookie: cookie() })
      const expired = await load(preparing, "c")
      await server.client.del(`${prefix}c`)
      await preparing.set("c", expired)
      assert.notEqual(await preparing.get("c"), null)
    }
    assert.throws(() => open({ hashIds: "prepare", onConflict: "merge", encryption: { keys: KEYS } }), {
      code: "ERR_REDIS_STORE_OPTIONS",
    })
  })
})

describe("compression", () => {
  test("is of long texts, and read by every store", async () => {
    const prefix = ownPrefix()
    const store = open({ prefix, compression: { minBytes: 200 } })
    await store.set("short", { cookie: cookie() })
    await store.set("long", { cookie: cookie(), text: "abc".repeat(1000) })
    assert.match(await server.client.get(`${prefix}short`), /^\{/)
    const stored = await server.client.get(`${prefix}long`)
    assert.ok(stored.startsWith("~1z.") && stored.length < 1000)
    for (const options of [{}, { onConflict: "merge" }, { compression: { minBytes: 1 } }, encrypted(KEYS)]) {
      const reader = open({ prefix, ...options })
      assert.equal((await reader.get("long")).text.length, 3000)
      assert.equal((await reader.all()).length, 2)
    }
    const merging = open({ prefix, onConflict: "merge" })
    const [one, two] = [await load(merging, "long"), await load(merging, "long")]
    one.a = 1
    two.b = 2
    await merging.set("long", one)
    await merging.set("long", two)
    const { a, b } = await merging.get("long")
    assert.deepEqual([a, b], [1, 2])
  })
})

describe("reseal", () => {
  test("seals all with the first key, keeps their times to live, and says how far it is", async () => {
    const prefix = ownPrefix()
    const before = open({ prefix, ...encrypted([OLD]) })
    const ids = Array.from({ length: 250 }, (_, n) => `s${n}`)
    await Promise.all(ids.map((sid) => before.set(sid, { cookie: cookie(), sid })))
    await server.client.set(`${prefix}plain`, JSON.stringify({ cookie: cookie(), sid: "plain" }))
    await server.client.set(`${prefix}alien`, "~1s.other.AAAA")
    await before.destroy("s0")
    const store = open({ prefix, ...encrypted(KEYS) })
    const told = []
    store.on("reseal", (progress) => told.push(progress))
    assert.deepEqual(await store.reseal(), { total: 251, done: 251, resealed: 250, failed: 1 })
    assert.deepEqual(
      told.map(({ done }) => done),
      [100, 200, 251],
    )
    assert.deepEqual(await store.reseal(), { total: 251, done: 251, resealed: 0, failed: 1 })
    for (const sid of ["s1", "s249", "plain"]) {
      assert.match(await server.client.get(prefix + sid), /^~1s\.new\./)
      assert.equal((await store.get(sid)).sid, sid)
    }
    assert.ok((await server.client.pTTL(`${prefix}s1`)) > HOUR / 2)
    assert.equal(await server.client.pTTL(`${prefix}plain`), -1)
    assert.equal(await server.client.get(`${prefix}alien`), "~1s.other.AAAA")
    assert.equal(await store.get("s0"), null)
  })

  test('moves all to hashed keys, and with plaintext "write" back to plain text', async () => {
    const prefix = ownPrefix()
    const plain = open({ prefix })
    for (const sid of ["a", "b"]) await plain.set(sid, { cookie: cookie(), sid })
    const sealing = open({ prefix, hashIds: "migrate", ...encrypted(KEYS) })
    assert.equal((await sealing.reseal()).resealed, 2)
    const stored = await server.client.get(prefix + handleOf("a"))
    assert.match(stored, /^~1s\.new\./)
    assert.deepEqual((await sealing.ids()).toSorted(), ["a", "b"].map(handleOf).toSorted())
    const leaving = open({ prefix, hashIds: true, ...encrypted(KEYS, "write") })
    assert.equal((await leaving.reseal()).resealed, 2)
    assert.match(await server.client.get(prefix + handleOf("a")), /^\{/)
    assert.equal((await open({ prefix, hashIds: true }).get("b")).sid, "b")
  })

  test("works by the commands of a client too", async () => {
    for (const { name, open: connect, close } of CLIENTS.filter(({ name }) => /mock|upstash/.test(name))) {
      const client = await connect(server.url)
      const store = new RedisStore({ client, prefix: ownPrefix(), ...encrypted(KEYS) })
      await new RedisStore({ client, prefix: store.prefix }).set("a", { cookie: cookie(), n: 1 })
      const done = await store.reseal().catch((error) => error)
      // One has no scripts, and the other is not known to leave keys as they are.
      if (name.endsWith("mock")) assert.equal(done.code, "ERR_REDIS_STORE_OPTIONS", name)
      else assert.equal(done.resealed, 1, name)
      assert.equal((await store.get("a")).n, 1)
      await close(client)
    }
  })
})

test("keygen prints a key, and nothing else", () => {
  const bin = join(import.meta.dirname, "../bin/connect-redis-native.js")
  const said = [0, 1].map(() => execFileSync(process.execPath, [bin, "keygen"], { encoding: "utf8" }))
  for (const text of said) {
    assert.match(text, /^[A-Za-z0-9+/]{43}=\n$/)
    open(encrypted([{ id: "a", key: text.trim() }]))
  }
  assert.notEqual(...said)
})

test("a canary id and a canary value are nowhere", async (t) => {
  const ID = "canary-session-id-4711"
  const VALUE = "canary-value-0815"
  const endSome = async (store, user) => {
    for (const n of [2, 3]) {
      await store
        .set(`${ID}-${n}`, { cookie: cookie(), user, secret: VALUE })
        .catch((error) => events.push([error, error.message, error.stack, error.cause]))
    }
    const [{ handle, info }] = await store.sessionsOf(user, { current: ID })
    assert.deepEqual(info, { secret: VALUE })
    await store.destroyHandle(user, handle)
    await store.destroyUser(user, { except: ID })
    await store.destroyUser(user)
    await store.set(ID, { cookie: cookie(), user, secret: VALUE })
  }
  const seen = []
  const monitor = await createClient({ url: server.url, RESP: 2 })
    .on("error", () => {})
    .connect()
  t.after(() => monitor.destroy())
  await monitor.monitor((line) => seen.push(line))
  await server.client.configSet("slowlog-log-slower-than", "0")
  const events = []
  const USERS = {
    userOf: ({ user }) => user,
    sessionInfo: ({ secret }) => ({ secret }),
    maxSessionsPerUser: { max: 2, onLimit: "reject" },
  }
  const user = `${VALUE}-user`
  for (const options of [
    SEALED,
    EVERYTHING,
    { ...SEALED, compression: null },
    { ...SEALED, ...USERS },
    { ...EVERYTHING, ...USERS },
  ]) {
    const store = open({ clientName: "sealed", ...options })
    for (const event of ["error", "conflict", "reseal"]) store.on(event, (...args) => events.push(args))
    await store.set(ID, { cookie: cookie(), user, secret: VALUE, text: "abc".repeat(100) })
    const [one, two] = [await load(store, ID), await load(store, ID)]
    one.more = VALUE
    await store.set(ID, one)
    two.other = VALUE
    await store.set(ID, two)
    await store.touch(ID, two)
    await store.all()
    await store.reseal()
    await store.destroy(ID)
    await store.set(ID, one)
    await store.set(ID, { cookie: cookie(), user, secret: VALUE })
    if (options.userOf !== undefined) await endSome(store, user)
    const at = store.prefix + handleOf(ID)
    const stored = await server.client.get(at)
    for (const wrong of [`${stored.slice(0, -3)}AAA`, "~1s.other.AAAA", "{}"]) {
      await server.client.set(at, wrong)
      await store.get(ID).catch((error) => events.push([error, error.message, error.stack, error.cause]))
    }
    await server.client.hSet(`${at}x`, "a", "b")
    await server.client.del(at)
    await server.client.hSet(at, "a", "b")
    await store.get(ID).catch((error) => events.push([error, error.message, error.cause?.message]))
    await server.client.del([at, `${at}x`])
    await store.set(ID, { cookie: cookie(), user, secret: VALUE })
  }
  assert.ok(events.length > 10)
  await until("the commands in MONITOR", () => seen.some((line) => line.includes(handleOf(ID))))
  await server.client.sendCommand(["CONFIG", "SET", "rdbcompression", "no"])
  await server.client.sendCommand(["SAVE"])
  const rdb = readFileSync(join(server.folder, "dump.rdb"), "latin1")
  assert.ok(rdb.includes(handleOf(ID)))
  const places = {
    rdb,
    monitor: seen.join("\n"),
    clients: await server.client.sendCommand(["CLIENT", "LIST"]),
    slowlog: JSON.stringify(await server.client.sendCommand(["SLOWLOG", "GET", "-1"])),
    events: events
      .flat()
      .map((part) => `${part?.stack} ${JSON.stringify(part)}`)
      .join("\n"),
  }
  const forbidden = [ID, VALUE, Buffer.from(VALUE).toString("base64").slice(0, 20), NEW.key.toString("base64")]
  for (const [place, text] of Object.entries(places)) {
    for (const canary of forbidden) assert.ok(!text.includes(canary), `${canary} in ${place}`)
  }
})

test("every store can be closed", async () => {
  await Promise.all(opened.map((store) => store.close()))
})
