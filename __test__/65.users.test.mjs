// The sessions of a user: the index follows the stored sessions.
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import { RedisStore } from "../index.mjs"
import { called, until } from "../testing/until.mjs"
import { cookie, entries, indexKeys, load, signIn, userOf } from "./support/users.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { hold } from "./support/steps.mjs"

const require = createRequire(import.meta.url)
const { loadProtocol } = require("../lib/native/protocol.js")
const { handleOf } = require("../lib/users/keys.js")
const { Recent, entryOf } = require("../lib/users/recent.js")
const { now } = require("../lib/timers.js")
const { isMarker } = require("../lib/races/marker.js")
const { SCRIPTS } = require("../lib/users/scripts.js")
const server = ownServer()

function open(options) {
  const prefix = ownPrefix()
  return new RedisStore({ url: server.url, prefix, userPrefix: `u-${prefix}`, userOf, ...options })
}

const keysOf = (store) => indexKeys(server.client, `u-${store.prefix}`)
const indexOf = async (store) => (await keysOf(store))[0]
const handles = async (store, user) => (await store.sessionsOf(user)).map(({ handle }) => handle).toSorted()
const handlesOf = (...sids) => sids.map(handleOf).toSorted()

describe("sessionsOf", () => {
  test("lists the user's sessions with their info, and no others", async () => {
    const store = open({ sessionInfo: (session, req) => ({ ip: session.ip, agent: req?.agent }) })
    const before = Date.now()
    await store.set("a", { cookie: cookie(), user: "ada", ip: "10.0.0.1", secret: "hunter2" })
    const session = store.createSession({ sessionID: "b", sessionStore: store, agent: "curl" }, { cookie: cookie() })
    session.user = "ada"
    session.ip = "10.0.0.2"
    await store.set("b", session)
    await store.set("c", { cookie: cookie(), user: "bob" })
    const found = await store.sessionsOf("ada", { current: "b" })
    assert.equal(found.length, 2)
    const [a, b] = found.toSorted((one, other) => one.created - other.created)
    assert.deepEqual([a.handle, a.info, a.current], [handleOf("a"), { ip: "10.0.0.1" }, false])
    assert.deepEqual([b.handle, b.info, b.current], [handleOf("b"), { ip: "10.0.0.2", agent: "curl" }, true])
    for (const { created, lastSeen, expires } of found) {
      for (const date of [created, lastSeen, expires]) assert.ok(date instanceof Date)
      assert.ok(created >= before - 5 && created <= Date.now() + 5, `${created}`)
      assert.ok(lastSeen >= created && lastSeen <= Date.now() + 5)
      assert.ok(Math.abs(expires - Date.now() - 3_600_000) < 10_000)
    }
    assert.deepEqual(Object.keys(a), ["handle", "created", "lastSeen", "expires", "info", "current"])
    assert.doesNotMatch(JSON.stringify(found), /hunter2/)
    await store.close()
  })

  test("returns promises and calls callbacks, with options or without", async () => {
    const store = open()
    await signIn(store, "a", "ada")
    const listed = await store.sessionsOf("ada")
    const handlesOfCall = async (start) => {
      const [error, found] = await called(start)
      return [error, found.map(({ handle }) => handle)]
    }
    const expected = [null, listed.map(({ handle }) => handle)]
    assert.deepEqual(await handlesOfCall((done) => store.sessionsOf("ada", done)), expected)
    assert.deepEqual(await handlesOfCall((done) => store.sessionsOf("ada", {}, done)), expected)
    assert.deepEqual(await called((done) => store.destroyHandle("ada", "none", done)), [null, false])
    assert.deepEqual(await called((done) => store.destroyUser("ada", { except: "a" }, done)), [null, 0])
    assert.deepEqual(await called((done) => store.destroyUser("ada", done)), [null, 1])
    assert.deepEqual(await called((done) => store.destroyUser("ada", null, done)), [null, 0])
    await store.close()
  })

  test("needs userOf and a user; a number is its text", async () => {
    const store = open()
    await signIn(store, "a", 7)
    for (const user of [7, "7", 7n]) assert.equal((await store.sessionsOf(user)).length, 1)
    for (const user of [undefined, null, "", {}, Number.NaN, true, Symbol("a")]) {
      for (const method of ["sessionsOf", "destroyUser", "destroyHandle"]) {
        await assert.rejects(store[method](user, "handle"), {
          code: "ERR_REDIS_STORE_OPTIONS",
          message: /A user must be/,
        })
      }
    }
    for (const handle of [undefined, 5, ""]) {
      await assert.rejects(store.destroyHandle(7, handle), { code: "ERR_REDIS_STORE_OPTIONS", message: /A handle/ })
    }
    const plain = new RedisStore({ url: server.url })
    for (const method of ["sessionsOf", "destroyUser", "destroyHandle"]) {
      await assert.rejects(plain[method](7, "handle"), { code: "ERR_REDIS_STORE_OPTIONS", message: /"userOf"/ })
    }
    await Promise.all([store.close(), plain.close()])
  })

  test("reports when a session was last seen, although touches do not write", async () => {
    const store = open()
    await signIn(store, "a", "ada", 100_000)
    const commands = () => store.stats().commands
    await until("a moment", async () => Date.now() - (await store.sessionsOf("ada"))[0].created > 300)
    const evals = JSON.stringify([commands().evalsha, commands().eval])
    await store.touch("a", { cookie: cookie(100_000), user: "ada" })
    assert.equal(JSON.stringify([commands().evalsha, commands().eval]), evals)
    const [{ created, lastSeen, expires }] = await store.sessionsOf("ada")
    assert.ok(lastSeen - created > 200, `${lastSeen - created}`)
    assert.ok(Math.abs(expires - lastSeen - 100_000) < 50)
    await store.close()
  })

  test("reports null as the expiry of a session that never expires", async () => {
    const store = open({ disableTTL: true })
    await signIn(store, "a", "ada")
    const [{ expires, lastSeen }] = await store.sessionsOf("ada")
    assert.equal(expires, null)
    assert.ok(lastSeen instanceof Date)
    for (const key of await keysOf(store)) assert.equal(await server.client.pTTL(key), -1)
    await store.destroy("a")
    assert.deepEqual(await keysOf(store), [])
    await store.close()
  })
})

describe("destroyUser and destroyHandle", () => {
  test("except keeps exactly one", async () => {
    const store = open()
    for (const sid of ["a", "b", "c"]) await signIn(store, sid, "ada")
    await signIn(store, "d", "bob")
    assert.equal(await store.destroyUser("ada", { except: "b" }), 2)
    assert.deepEqual((await store.ids()).toSorted(), ["b", "d"])
    // The session of another user keeps none.
    assert.equal(await store.destroyUser("ada", { except: "d" }), 1)
    assert.deepEqual(await store.ids(), ["d"])
    assert.deepEqual(await handles(store, "bob"), handlesOf("d"))
    await store.close()
  })

  test("a handle ends one session of its user, and is not a session id", async () => {
    const store = open()
    await signIn(store, "a", "ada")
    await signIn(store, "b", "bob")
    const [{ handle }] = await store.sessionsOf("ada")
    assert.equal(await store.get(handle), null)
    await store.destroy(handle)
    assert.equal(await store.destroyHandle("bob", handle), false)
    assert.equal((await store.ids()).length, 2)
    assert.equal(await store.destroyHandle("ada", handle), true)
    assert.equal(await store.destroyHandle("ada", handle), false)
    assert.deepEqual(await store.ids(), ["b"])
    assert.deepEqual(await handles(store, "ada"), [])
    await store.close()
  })

  test("an ended session stays ended although a request still works on it", async () => {
    for (const end of [(store) => store.destroyUser("ada"), (store) => store.destroyHandle("ada", handleOf("a"))]) {
      for (const onConflict of ["overwrite", "merge"]) {
        const store = open({ onConflict })
        await signIn(store, "a", "ada")
        const loaded = await load(store, "a")
        await end(store)
        loaded.n = 1
        await store.set("a", loaded)
        assert.equal(await store.get("a"), null)
        assert.deepEqual(await handles(store, "ada"), [])
        await store.close()
      }
    }
  })

  test("end 1200 sessions of one user, in several steps", async () => {
    const store = open({ commandTimeoutMs: 20_000 })
    await Promise.all(Array.from({ length: 1200 }, (_, n) => signIn(store, `s${n}`, "ada")))
    assert.equal((await store.sessionsOf("ada")).length, 1200)
    assert.equal(await store.destroyUser("ada"), 1200)
    assert.equal(await store.length(), 0)
    assert.deepEqual(await keysOf(store), [])
    await store.close()
  })
})

describe("the index follows the session", () => {
  test("regenerate, destroy, an expiry in the past: no key is left", async () => {
    const store = open()
    const other = open({ prefix: store.prefix, userPrefix: `u-${store.prefix}` })
    for (const end of [
      (sid) => store.destroy(sid),
      // Removed without this process.
      async (sid) => {
        await until("an older entry", async () => (await entries(server.client, `u-${store.prefix}`, 20)) > 0)
        await other.destroy(sid)
      },
      (sid) => store.set(sid, { cookie: cookie(-1), user: "ada" }),
      (sid) => new Promise((done) => store.regenerate({ sessionID: sid }, done)),
      () => store.destroyUser("ada"),
    ]) {
      store.generate = () => {}
      await signIn(store, "a", "ada")
      assert.equal((await keysOf(store)).length, 1)
      await end("a")
      assert.deepEqual(await keysOf(store), [])
    }
    await Promise.all([store.close(), other.close()])
  })

  test("clear", async () => {
    const store = open()
    for (let n = 0; n < 20; n++) await signIn(store, `s${n}`, `user${n % 7}`)
    await until("older entries", async () => (await entries(server.client, `u-${store.prefix}`, 500)) === 7)
    await store.clear()
    assert.deepEqual(await keysOf(store), [])
    await store.close()
  })

  test("clear keeps the entries of sign-ins during it, however late the server runs its commands", async () => {
    const store = open()
    const other = open({ prefix: store.prefix, userPrefix: `u-${store.prefix}` })
    await signIn(other, "a", "ada")
    await until("older entries", async () => (await entries(server.client, `u-${store.prefix}`, 20)) === 1)
    let isHeld = false
    hold(store, async (command) => {
      if (command !== "sweep" || isHeld) return
      isHeld = true
      const clearedMs = now() - startedAt
      await signIn(other, "b", "ada")
      const isOld = async () => (await entries(server.client, `u-${store.prefix}`, clearedMs + 100)) === 1
      await until("an entry that is older than the clearing was", isOld)
    })
    const startedAt = now()
    await store.clear()
    assert.ok(isHeld)
    assert.deepEqual(await handles(other, "ada"), handlesOf("b"))
    await Promise.all([store.close(), other.close()])
  })

  test("a change of user in one session, there and back, and a sign-out that keeps it", async () => {
    for (const onConflict of ["overwrite", "merge", "error"]) {
      const store = open({ onConflict })
      await signIn(store, "a", "ada")
      const loaded = await load(store, "a")
      for (const [user, ...listed] of [
        ["bob", 0, 1],
        ["ada", 1, 0],
        ["bob", 0, 1],
        [undefined, 0, 0],
        ["ada", 1, 0],
      ]) {
        loaded.user = user
        await store.set("a", loaded)
        const found = [await store.sessionsOf("ada"), await store.sessionsOf("bob")]
        assert.deepEqual(
          found.map(({ length }) => length),
          listed,
        )
        assert.equal((await keysOf(store)).length, user === undefined ? 0 : 1)
      }
      assert.equal(await store.destroyUser("bob"), 0)
      assert.equal(await store.destroyUser("ada"), 1)
      await store.close()
    }
  })

  test("plain sets of objects that were never loaded, by another process", async () => {
    const store = open()
    const other = open({ prefix: store.prefix, userPrefix: `u-${store.prefix}` })
    await signIn(store, "a", "ada")
    await signIn(other, "a", "bob")
    assert.deepEqual(await handles(store, "ada"), [])
    assert.equal(await store.destroyUser("ada"), 0)
    assert.equal(await store.destroyHandle("ada", handleOf("a")), false)
    assert.notEqual(await store.get("a"), null)
    assert.deepEqual(await handles(store, "bob"), handlesOf("a"))
    await store.set("a", { cookie: cookie() })
    assert.deepEqual(await handles(store, "bob"), [])
    assert.deepEqual(await keysOf(store), [])
    await Promise.all([store.close(), other.close()])
  })

  test("sessions from before the option get an entry at their next save", async () => {
    const plain = new RedisStore({ url: server.url, prefix: ownPrefix() })
    const store = open({ prefix: plain.prefix, userPrefix: `u-${plain.prefix}` })
    await signIn(plain, "a", "ada")
    assert.deepEqual(await handles(store, "ada"), [])
    await store.set("a", await load(store, "a"))
    assert.deepEqual(await handles(store, "ada"), handlesOf("a"))
    await Promise.all([plain.close(), store.close()])
  })

  test("every save leaves an entry, with all options", async () => {
    for (const options of [
      {},
      { onDestroyed: "save" },
      { onDestroyed: "error" },
      { onConflict: "merge" },
      { onConflict: "error" },
      { onConflict: (_base, mine) => mine },
      { maxLifetime: 3600 },
      { touchAfter: 60 },
      { freshExpires: true },
      { tagSessions: true },
      { disableTTL: true },
      { serializer: { parse: async (text) => JSON.parse(text), stringify: JSON.stringify } },
    ]) {
      const store = open(options)
      const has = async (...sids) => assert.deepEqual(await handles(store, "ada"), handlesOf(...sids))
      await signIn(store, "a", "ada")
      await has("a")
      const session = `${store.prefix}a`
      for (const isLost of [(key) => key === session, (key) => key !== session, () => true]) {
        const lose = async () => {
          for (const key of [...(await keysOf(store)), session].filter(isLost)) await server.client.del(key)
        }
        const loaded = await load(store, "a")
        await lose()
        loaded.n = 1
        await store.set("a", loaded)
        await has("a")
        await lose()
        await signIn(store, "a", "ada")
        await has("a")
        await signIn(store, "b", "ada")
        await has("a", "b")
        const left = await server.client.pTTL(await indexOf(store))
        assert.equal(left > 0, options.disableTTL !== true, "an index that expires, if its sessions do")
        await store.destroy("b")
      }
      await store.close()
    }
  })
})

describe("evicted, flushed, lost", () => {
  test("listed sessions exist, and stale entries are dropped", async () => {
    const store = open()
    for (const sid of ["a", "b", "c"]) await signIn(store, sid, "ada")
    await server.client.del(`${store.prefix}a`)
    assert.deepEqual(await handles(store, "ada"), handlesOf("b", "c"))
    const index = await indexOf(store)
    assert.equal(await server.client.hLen(index), 2)
    await server.client.set(`${store.prefix}b`, "no session")
    assert.deepEqual(await handles(store, "ada"), handlesOf("c"))
    await server.client.flushDb()
    assert.deepEqual(await handles(store, "ada"), [])
    assert.equal(await store.destroyUser("ada"), 0)
    await store.close()
  })

  test("for two deadlines an entry without a session counts as a sign-in in progress", async () => {
    const store = open({ commandTimeoutMs: 200 })
    await signIn(store, "a", "ada")
    const index = await indexOf(store)
    const entry = await server.client.hGet(index, handleOf("a"))
    // As left in a cluster by a process that was killed before it wrote the session.
    await server.client.hSet(index, handleOf("a"), entry.replace(/^(\d+:\d+:\d*):a:/, "$1:p:"))
    await server.client.del(`${store.prefix}a`)
    assert.deepEqual(await handles(store, "ada"), [])
    assert.equal(await server.client.hLen(index), 1)
    await until("no entry", async () => {
      assert.deepEqual(await handles(store, "ada"), [])
      return (await keysOf(store)).length === 0
    })
    await store.close()
  })

  test("a client that dies between the two steps leaves nothing that is listed", async () => {
    const store = open({ commandTimeoutMs: 200 })
    await signIn(store, "a", "ada")
    await signIn(store, "b", "ada")
    await server.client.del(`${store.prefix}b`)
    assert.equal(await store.destroyUser("ada"), 1)
    assert.deepEqual(await keysOf(store), [])
    await store.close()
  })
})

describe("expiry", () => {
  test("touches update it after a tenth of the session's life", async () => {
    const store = open()
    await signIn(store, "a", "ada", 1000)
    const index = await indexOf(store)
    const written = async () => (await server.client.hGet(index, handleOf("a"))).split(":")[1] / 1000
    const first = await written()
    await store.touch("a", { cookie: cookie(1000), user: "ada" })
    assert.equal(await written(), first)
    await until("an entry that was written again", async () => {
      await store.touch("a", { cookie: cookie(1000), user: "ada" })
      return (await written()) > first
    })
    assert.ok((await written()) - first >= 90, "sooner than after a tenth")
    await store.close()
  })

  test("an index outlives the last of its sessions by no more than a tenth of its life", async () => {
    const store = open()
    await signIn(store, "a", "ada", 100_000)
    await signIn(store, "b", "ada", 20_000)
    const life = async () => server.client.pTTL(await indexOf(store))
    let left = await life()
    assert.ok(left > 100_000 && left <= 110_001, `${left}`)
    await store.destroy("a")
    left = await life()
    assert.ok(left > 19_000 && left <= 22_001, `${left}`)
    await store.close()
  })

  test("an index lives as long as the entry that lives longest, and for ever with one that does", async () => {
    const store = open()
    const life = async () => server.client.pTTL(await indexOf(store))
    for (const [sid, ms, longest] of [
      ["a", 20_000, 20_000],
      ["b", 100_000, 100_000],
      ["c", 50_000, 100_000],
      ["b", 30_000, 50_000],
    ]) {
      await signIn(store, sid, "ada", ms)
      const left = await life()
      assert.ok(left > longest && left <= 1.1 * longest + 1, `${sid} ${left}`)
    }
    const { prefix } = store
    const endless = open({ disableTTL: true, prefix, userPrefix: `u-${prefix}` })
    await signIn(endless, "d", "ada", 1000)
    await signIn(store, "e", "ada", 200_000)
    assert.equal(await life(), -1)
    await endless.destroy("d")
    const is200s = async () => {
      const left = await life()
      assert.ok(left > 199_000 && left <= 220_001, `${left}`)
    }
    await is200s()
    await signIn(endless, "e2", "ada", 1000)
    assert.equal(await life(), -1)
    await signIn(store, "e2", "ada", 1000)
    await is200s()
    // An index of several pages.
    for (let n = 0; n < 300; n++) await signIn(store, `s${n}`, "ada", 30_000)
    await signIn(endless, "d", "ada", 1000)
    await endless.destroy("d")
    await is200s()
    await endless.close()
    await store.close()
  })

  test("sign-ins drop expired sessions, and Redis expires the last ones", async () => {
    const store = open()
    for (let n = 0; n < 50; n++) await signIn(store, `s${n}`, "ada", 100)
    await until("no session", async () => (await store.length()) === 0)
    await until("an expired index", async () => (await keysOf(store)).length === 0)
    await signIn(store, "a", "ada", 400)
    for (let n = 0; n < 50; n++) await signIn(store, `s${n}`, "ada", 50)
    await until("expired sessions", async () => (await store.length()) === 1)
    await until("dropped entries", async () => {
      await signIn(store, "a", "ada", 400)
      const index = await indexOf(store)
      return (await server.client.hLen(index)) === 1
    })
    await until("no index", async () => (await keysOf(store)).length === 0)
    await store.close()
  })

  const LONG = process.env.LONG_FORM !== undefined
  const [SESSIONS, USERS] = LONG ? [100_000, 1000] : [2000, 100]
  test(`${SESSIONS} sessions of ${USERS} users expire without being read`, async () => {
    const store = open({ commandTimeoutMs: 20_000, maxPending: 1_000_000 })
    const end = Date.now() + (LONG ? 30_000 : 3000)
    const sign = (n) => signIn(store, `s${n}`, `user${n % USERS}`, end - Date.now())
    for (let at = 0; at < SESSIONS; at += 1000) {
      await Promise.all(Array.from({ length: 1000 }, (_, n) => sign(at + n)))
    }
    assert.equal((await keysOf(store)).length, USERS)
    await until("no key at all", async () => (await server.client.keys(`*${store.prefix}*`)).length === 0, 60_000)
    await store.close()
  })
})

describe("names", () => {
  test("a user id of any characters, a kilobyte long, is found, and no key contains it", async () => {
    const store = open()
    const users = ["x".repeat(1024), "*?[a]\\", "{a}{b}", "a b\r\n", "Zoë🦀", "\ud800", "\0", "__proto__", " ", "0"]
    for (const [n, user] of users.entries()) await signIn(store, `s${n}`, user)
    for (const [n, user] of users.entries()) {
      const found = await handles(store, user)
      assert.deepEqual(found, handlesOf(`s${n}`))
    }
    for (const key of await server.client.keys("*")) {
      for (const user of ["x".repeat(20), "Zoë", "__proto__", "\r\n"]) assert.ok(!key.includes(user))
    }
    for (const [n, user] of users.entries()) {
      assert.equal(await store.destroyHandle(user, handleOf(`s${n}`)), true)
    }
    assert.equal(await store.length(), 0)
    await store.close()
  })

  test("indexes below the prefix are not sessions, and by default they are outside of it", async () => {
    for (const [prefix, userPrefix] of [
      ["n1:", "n1:users:"],
      ["n2:", "n2:"],
      ["n3:", undefined],
      ["", undefined],
    ]) {
      await server.client.flushDb()
      const store = new RedisStore({ url: server.url, prefix, userPrefix, userOf })
      for (const sid of ["a", "b"]) await signIn(store, sid, "ada")
      assert.deepEqual([await store.length(), (await store.ids()).toSorted()], [2, ["a", "b"]])
      assert.equal((await store.all()).length, 2)
      assert.equal((await store.sessionsOf("ada")).length, 2)
      const keys = await server.client.keys("*")
      assert.equal(keys.filter((key) => key.startsWith(userPrefix ?? `users:${prefix}`)).length >= 1, true)
      if (prefix === "n3:") assert.equal(keys.filter((key) => key.startsWith(prefix)).length, 2)
      await until("older entries", async () => (await entries(server.client, userPrefix ?? "users:", 500)) > 0)
      await store.clear()
      assert.deepEqual(
        (await server.client.keys("*")).filter((key) => !isMarker(prefix, key)),
        [],
      )
      await store.close()
    }
  })

  test("stores of two prefixes have two indexes", async () => {
    const [one, other] = [1, 2].map(() => new RedisStore({ url: server.url, prefix: ownPrefix(), userOf }))
    await signIn(one, "a", "ada")
    await signIn(other, "a", "ada")
    assert.equal(await one.destroyUser("ada"), 1)
    assert.equal((await other.sessionsOf("ada")).length, 1)
    await Promise.all([one.close(), other.close()])
  })
})

describe("functions of the application", () => {
  test("that throw or return a wrong value fail the save with an error that names them", async () => {
    const failure = new Error("mine")
    const refused = async (options, expected, session = { cookie: cookie(), user: "ada" }) => {
      const store = open(options)
      await assert.rejects(store.set("a", session), expected)
      assert.equal(await store.get("a"), null)
      assert.deepEqual(await keysOf(store), [])
      await store.close()
    }
    const throwing = () => {
      throw failure
    }
    await refused({ userOf: throwing }, failure)
    await refused({ sessionInfo: throwing }, failure)
    for (const user of [{}, [], true, Number.NaN, Infinity, Symbol("a"), () => {}]) {
      await refused(
        { userOf: () => user },
        { code: "ERR_REDIS_STORE_OPTIONS", message: /"userOf" must be a string or/ },
      )
    }
    await refused(
      { sessionInfo: () => ({ agent: "x".repeat(5000) }) },
      { code: "ERR_REDIS_STORE_ENCODE", message: /"sessionInfo" must return at most 4096 .* got 50/ },
    )
    await refused({ sessionInfo: () => ({ n: 1n }) }, TypeError)
  })

  test("that return no user leave the session out", async () => {
    for (const user of [undefined, null, "", false]) {
      const store = open({ userOf: () => user })
      await signIn(store, "a", "ada")
      assert.notEqual(await store.get("a"), null)
      assert.deepEqual(await keysOf(store), [])
      await store.close()
    }
  })
})

describe("a connection that was lost", () => {
  test("the next touch writes the entry again", async () => {
    const store = open()
    await signIn(store, "a", "ada")
    await server.client.del(await keysOf(store))
    await until("the connection to be told of", () => store.status === "ready")
    const ready = new Promise((resolve) => store.once("ready", resolve))
    await server.client.sendCommand(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    await until("an answer", () => store.get("a").catch(() => {}))
    await ready
    await store.touch("a", await load(store, "a"))
    assert.deepEqual(await handles(store, "ada"), handlesOf("a"))
    await store.close()
  })

  // The connection may be told of after the first replies.
  test("the user of a session that was saved before is known, so that destroy() drops its entry at once", () => {
    const recent = new Recent()
    const entry = entryOf("a", "sess:", "ada", "users:ada", handleOf("a"))
    recent.entered(entry, 60_000, now())
    assert.equal(recent.isFresh(entry, 60_000), true)
    recent.connected()
    assert.equal(recent.get("a", "sess:"), entry)
    assert.equal(recent.isFresh(entry, 60_000), false)
  })
})

test("the entry of a session that is gone is kept until it has a marker", async (t) => {
  const store = open()
  await signIn(store, "a", "ada")
  await server.client.del(`${store.prefix}a`)
  await server.client.sendCommand(["ACL", "SETUSER", "keeps", "on", ">pw", "~*", "+@all", "-del"])
  t.after(() => server.client.sendCommand(["ACL", "DELUSER", "keeps"]))
  const login = { username: "keeps", password: "pw" }
  const refused = open({ prefix: store.prefix, userPrefix: `u-${store.prefix}`, ...login })
  await assert.rejects(refused.destroyUser("ada"), (error) => error.cause.code === "NOPERM")
  assert.equal((await keysOf(store)).length, 1)
  assert.equal(await store.destroyUser("ada"), 0)
  assert.deepEqual(await keysOf(store), [])
  assert.equal(await server.client.exists(`${store.prefix}{${store.prefix}a}`), 1)
  await Promise.all([store.close(), refused.close()])
})

test("the permissions of docs/topologies.md suffice", async (t) => {
  const page = readFileSync(new URL("../docs/topologies.md", import.meta.url), "utf8")
  const lines = [...page.matchAll(/^ACL SETUSER .*$/gm)].map(([line]) => line.split(" "))
  assert.equal(lines.length, 2)
  for (const words of lines) await server.client.sendCommand(words)
  t.after(() => server.client.sendCommand(["ACL", "DELUSER", "sessions"]))
  const url = server.url.replace("redis://", "redis://sessions:password@")
  const store = new RedisStore({ url, userOf, maxSessionsPerUser: { max: 1000, onLimit: "reject" } })
  // One sign-in in 16 looks for dead entries.
  for (let n = 0; n < 200; n++) await signIn(store, `s${n}`, "ada", n % 2 === 0 ? 3_600_000 : 1000)
  const loaded = await load(store, "s0")
  await store.set("s0", loaded)
  await store.touch("s0", loaded)
  await signIn(store, "s0", "bob")
  await store.destroy("s2")
  const [{ handle }] = await store.sessionsOf("bob")
  assert.equal(await store.destroyHandle("bob", handle), true)
  assert.ok((await store.destroyUser("ada")) > 90)
  await store.clear()
  await store.close()
})

test("the scripts of stores that delegate equal those of the binding", () => {
  const plain = (text) => text.replaceAll(/\s+/g, " ").trim()
  assert.deepEqual(Object.values(SCRIPTS).map(plain), loadProtocol().userScripts.map(plain))
})
