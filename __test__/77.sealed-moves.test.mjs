// Moves of sessions to hashed keys: each state of the two keys, and processes of both steps at the same time. One process
// ends in the middle of a move.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"

import { RedisStore } from "../index.mjs"
import { startCluster } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { KEYS, handleOf } from "./support/sealed.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { hold } from "./support/steps.mjs"

const require = createRequire(import.meta.url)
const { MARKER_LIFE_MS, markerOf } = require("../lib/races/marker.js")
const server = ownServer()
const HOUR = 3_600_000
const cookie = (ms = HOUR) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })
const textOf = (n) => JSON.stringify({ cookie: cookie(), n })
const opened = []
const open = (prefix, hashIds, options) => {
  const store = new RedisStore({ url: server.url, prefix, hashIds, ...options })
  opened.push(store)
  return store
}
const load = async (store, sid = "a") => {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

/** Both keys of session "a", in one of the states of a move: under the id is 1, under the hash 2. */
async function put(state, prefix = ownPrefix()) {
  const [old, hashed] = [`${prefix}a`, prefix + handleOf("a")]
  const under = { plain: textOf(1), claimed: `~1m.${textOf(1)}` }[state.split(" ")[0]]
  if (under !== undefined) await server.client.set(old, under, { PX: HOUR })
  if (state.endsWith("moved")) await server.client.set(hashed, textOf(2), { PX: HOUR })
  return { prefix, old, hashed, n: state.endsWith("moved") ? 2 : 1 }
}

const STATES = ["plain", "claimed", "claimed moved", "plain moved", "moved"]
const MODES = ["prepare", "migrate"]
const exists = (key) => server.client.exists(key)

describe("a session in each state of a move", () => {
  for (const state of STATES) {
    for (const mode of MODES) {
      test(`${state}, ${mode}: it is read, saved, touched, listed and moved`, async () => {
        for (const options of [
          {},
          { freshExpires: true },
          { onConflict: "merge" },
          { onConflict: "error" },
          { userOf: () => "ada" },
        ]) {
          const { prefix, old, hashed, n } = await put(state)
          const store = open(prefix, mode, options)
          assert.equal(await store.length(), 1)
          assert.equal((await store.ids()).length, 1)
          assert.deepEqual(
            (await store.all()).map((session) => session.n),
            [n],
          )
          const session = await load(store)
          assert.equal(session.n, n)
          session.n = 7
          session.cookie = { ...cookie(2 * HOUR), originalMaxAge: 2 * HOUR }
          await store.set("a", session)
          await store.touch("a", { cookie: cookie(3 * HOUR) })
          for (const other of MODES) assert.equal((await open(prefix, other).get("a")).n, 7)
          assert.equal((await open(prefix, "migrate").reseal()).failed, 0)
          assert.equal(await exists(old), 0)
          assert.equal((await open(prefix, true).get("a")).n, 7)
          assert.ok((await server.client.pTTL(hashed)) > 2 * HOUR)
        }
      })

      test(`${state}, ${mode}: one that is set, also with a user, is there once`, async () => {
        for (const options of [{}, { userOf: () => "ada" }]) {
          const { prefix, old } = await put(state)
          const store = open(prefix, mode, options)
          await store.set("a", { cookie: cookie(), n: 7 })
          for (const other of MODES) assert.equal((await open(prefix, other).get("a")).n, 7)
          await open(prefix, "migrate").reseal()
          assert.equal(await exists(old), 0)
          assert.equal((await open(prefix, true).get("a")).n, 7)
        }
      })

      for (const [way, end] of [
        ["destroyed", (store) => store.destroy("a")],
        ["destroyed by its handle", async (store) => assert.equal(await store.destroyHandle(handleOf("a")), true)],
        [
          "saved with an expired cookie",
          (store) => store.set("a", { cookie: { originalMaxAge: HOUR, expires: new Date(0) } }),
        ],
        ["touched with an expired cookie", (store) => store.touch("a", { cookie: { expires: new Date(0) } })],
      ]) {
        test(`${state}, ${mode}: one that is ${way} is gone`, async () => {
          const { prefix, old, hashed } = await put(state)
          const store = open(prefix, mode)
          const other = open(prefix, "prepare")
          const session = await load(other)
          await end(store)
          assert.equal((await exists(old)) + (await exists(hashed)), 0)
          const isGone = async () => {
            for (const each of MODES) assert.equal(await open(prefix, each).get("a"), null)
          }
          await isGone()
          if (!way.startsWith("destroyed")) return
          await other.set("a", session)
          await isGone()
        })
      }
    }
  }

  test("a handle is no name in a marker of an id", async () => {
    const { prefix } = await put("plain")
    await open(prefix, "migrate").destroyHandle(handleOf("a"))
    assert.deepEqual(await server.client.keys(`${prefix}*`), [`${prefix}{${prefix}${handleOf("a")}}`])
  })

  test("a save goes on with a move that its process has not ended", async () => {
    for (const onConflict of ["overwrite", "merge", "error"]) {
      for (const isAdded of [false, true]) {
        const { prefix, old, hashed } = await put("plain")
        const store = open(prefix, "prepare", { onConflict })
        const sessions = [await load(store), await load(store)]
        const stored = await server.client.get(old)
        await server.client.set(old, `~1m.${stored}`, { PX: HOUR })
        if (isAdded) await server.client.set(hashed, stored, { PX: HOUR })
        sessions[0].one = 1
        await store.set("a", sessions[0])
        if (onConflict === "merge") {
          sessions[1].two = 2
          await store.set("a", sessions[1])
        }
        assert.equal(await exists(old), isAdded ? 1 : 0)
        const { one, two } = await open(prefix, true).get("a")
        assert.deepEqual([one, two], [1, onConflict === "merge" ? 2 : undefined])
      }
    }
  })

  test("reseal() leaves what is being moved as it is, before ids are hashed", async () => {
    const { prefix, old } = await put("claimed")
    const before = await server.client.get(old)
    const resealed = await open(prefix, "prepare", { encryption: { keys: KEYS } }).reseal()
    assert.deepEqual([resealed.resealed, await server.client.get(old)], [0, before])
  })

  test("what no text can be made of fails a save at once", async () => {
    const { prefix, old } = await put("plain")
    const store = open(prefix, "prepare", { onConflict: "merge" })
    const session = await load(store)
    session.n = 3
    await server.client.set(old, "~1m.{")
    await assert.rejects(store.set("a", session), (error) => error.code !== "ERR_REDIS_STORE_TIMEOUT")
  })

  test("by the commands of a client, with scripts and without", async () => {
    for (const { name, open: connect, close } of CLIENTS.filter(({ native }) => native === false)) {
      if (/mock/.test(name)) continue
      for (const state of STATES) {
        for (const mode of MODES) {
          const client = await connect(server.url)
          if (typeof (client.pttl ?? client.pTTL) !== "function") {
            const options = { code: "ERR_REDIS_STORE_OPTIONS", message: /"hashIds".*pttl/ }
            assert.throws(() => new RedisStore({ client, hashIds: mode }), options)
            await close(client)
            continue
          }
          const { prefix, n } = await put(state)
          const store = new RedisStore({ client, prefix, hashIds: mode, encryption: { keys: KEYS } })
          const session = await load(store)
          assert.equal(session?.n, n, `${name}, ${state}, ${mode}`)
          session.n = 7
          await store.set("a", session)
          assert.equal((await store.get("a")).n, 7, `${name}, ${state}, ${mode}`)
          await store.destroy("a")
          assert.equal(await store.get("a"), null)
          await store.close()
          await close(client)
        }
      }
    }
  })
})

describe("an id that looks like a hash", () => {
  test("opens, moves and ends no session of another id, and is warned of once", async () => {
    const warnings = []
    const heard = (warning) => warnings.push(warning)
    process.on("warning", heard)
    for (const mode of MODES) {
      for (const state of STATES) {
        const { prefix, hashed, old } = await put(state)
        const store = open(prefix, mode)
        const handle = handleOf("a")
        const before = await server.client.mGet([old, hashed])
        assert.equal(await store.get(handle), null)
        await store.touch(handle, { cookie: cookie(1) })
        await store.set(handle, { cookie: cookie(), n: 9 })
        assert.equal((await store.get(handle)).n, 9)
        await store.destroy(handle)
        assert.equal(await store.get(handle), null)
        assert.deepEqual(await server.client.mGet([old, hashed]), before, `${mode}, ${state}`)
        await store.set(handle, { cookie: cookie(), n: 9 })
        assert.equal((await open(prefix, true).get(handle)).n, 9)
      }
    }
    process.off("warning", heard)
    const own = warnings.filter(({ code }) => code === "CONNECT_REDIS_NATIVE_AMBIGUOUS_ID")
    assert.equal(own.length, 1)
    assert.ok(!own[0].message.includes(handleOf("a")))
  })
})

describe("another process comes in between", () => {
  /** Stores of a plain session; `at(store, name, key, run)` runs once, before that command. */
  async function stores() {
    const { prefix, old, hashed } = await put("plain")
    const at = (store, name, key, run) => {
      let done = false
      hold(store, async (command, its) => {
        if (done || command !== name || its !== key) return
        done = true
        await run()
      })
      return () => assert.ok(done, `${name} was asked`)
    }
    const [one, two] = [open(prefix, "migrate"), open(prefix, "migrate")]
    return { prefix, old, hashed, one, two, preparing: open(prefix, "prepare"), at }
  }

  test("a session that was destroyed twice is not moved, however late the move comes", async () => {
    const { prefix, old, hashed } = await put("plain")
    const [one, two] = [open(prefix, "migrate", { commandTimeoutMs: 20_000 }), open(prefix, "migrate")]
    const leftOfMarker = () => server.client.pTTL(markerOf(prefix, hashed))
    await two.destroy("a")
    await until("an older marker", async () => (await leftOfMarker()) < MARKER_LIFE_MS - 300)
    await put("plain", prefix)
    let asked = 0
    hold(one, async (command) => {
      if (command !== "add" || ++asked !== 2) return
      const known = await leftOfMarker()
      await two.destroy("a")
      await until("a marker that has as little left", async () => (await leftOfMarker()) < known)
    })
    assert.equal(await one.get("a"), null)
    assert.equal(asked, 2)
    assert.equal((await exists(old)) + (await exists(hashed)), 0)
  })

  /**
   * A logout by a store with hashIds `ends`, before and after each command of a save by one with `saves`, or a save
   * before and after each command of a logout, with another request after it: the session is gone.
   */
  async function logoutIsFinal(connect, [ends, saves], options, { isOfUser, isEvicted, isLogoutHeld }) {
    const [before, after] = typeof ends === "boolean" ? [ends, ends] : MODES
    let isReached = true
    for (let at = 0; isReached; at++) {
      const prefix = ownPrefix()
      const signedIn = (hashIds) => connect({ prefix, hashIds, userOf: () => "ada", ...options })
      const stores = [before, after, saves, ends].map(signedIn)
      const [signer, mover, saver, ender] = stores
      await signer.set("a", { cookie: cookie(), n: 1 })
      const session = await load(saver)
      session.n = 2
      // Without a marker, as an eviction.
      const ended = { cookie: { originalMaxAge: HOUR, expires: new Date(0).toISOString() } }
      if (isEvicted) await mover.touch("a", ended)
      const logout = () => (isOfUser ? ender.destroyUser("ada") : ender.destroy("a"))
      const save = () => saver.set("a", session)
      const [held, run, meanwhile] = isLogoutHeld ? [ender, logout, save] : [saver, save, logout]
      isReached = false
      let count = 0
      hold(held, async () => {
        const turn = count++ - at
        // By a load that is surely later than what went before.
        if (turn === 1) await delay(3).then(() => mover.get("a"))
        if (turn !== 0) return
        isReached = true
        await meanwhile()
      })
      await run()
      if (!isReached) await meanwhile()
      const about = JSON.stringify({ options, isOfUser, isEvicted, isLogoutHeld, at })
      assert.equal(await signer.get("a"), null, about)
      assert.equal(await mover.get("a"), null, about)
      await Promise.all(stores.map((store) => store.close()))
    }
  }

  const EITHER = [false, true]
  for (const pair of [
    ["migrate", "prepare"],
    ["prepare", "migrate"],
    ["migrate", "migrate"],
    ["prepare", "prepare"],
    [false, false],
    [true, true],
  ]) {
    test(`a logout by ${pair[0]} is final, before and after each command of it and of a save by ${pair[1]}`, async () => {
      const connect = (more) => new RedisStore({ url: server.url, ...more })
      for (const options of [{}, { onConflict: "merge" }, { onConflict: "error" }]) {
        for (const isOfUser of EITHER) {
          for (const isEvicted of EITHER) {
            for (const isLogoutHeld of EITHER) {
              await logoutIsFinal(connect, pair, options, { isOfUser, isEvicted, isLogoutHeld })
            }
          }
        }
      }
    })
  }

  test("a logout in a cluster is final too, where no script may name both keys", async () => {
    const cluster = await startCluster({ replicas: 0 })
    const connect = (more) => new RedisStore({ nodes: cluster.nodes, ...more })
    for (const pair of [
      ["migrate", "prepare"],
      ["prepare", "prepare"],
    ]) {
      for (const isLogoutHeld of EITHER) {
        await logoutIsFinal(connect, pair, {}, { isOfUser: false, isEvicted: true, isLogoutHeld })
      }
    }
    await cluster.stop()
  })

  test("a move does not lengthen the life of a session, however long it takes", async () => {
    const { prefix, old, hashed, one, at } = await stores()
    let left
    const wasHeld = at(one, "swap", old, async () => {
      await until("some time", async () => (await server.client.pTTL(old)) < HOUR - 300)
      left = await server.client.pTTL(old)
    })
    assert.equal((await one.get("a")).n, 1)
    wasHeld()
    assert.ok((await server.client.pTTL(hashed)) <= left, prefix)
  })

  test("a save is not lost, whatever of a move it meets", async () => {
    for (const [name, key] of [
      ["get", "hashed"],
      ["get", "old"],
      ["pttl", "old"],
      ["rewrite", "old"],
      ["add", "hashed"],
      ["pttl", "hashed"],
      ["remove", "old"],
    ]) {
      for (const isMoved of [false, true]) {
        const { one, two, preparing, at, ...all } = await stores()
        const session = await load(preparing)
        session.n = 5
        const met = at(one, name, all[key], async () => {
          await preparing.set("a", session)
          if (isMoved) await two.get("a")
        })
        await one.get("a")
        met()
        for (const store of [one, two, preparing]) assert.equal((await store.get("a")).n, 5, `${name} of ${key}`)
      }
    }
  })

  test("a save that does not compare is carried over", async () => {
    for (const [name, key] of [
      ["get", "old"],
      ["rewrite", "old"],
      ["add", "hashed"],
      ["remove", "old"],
    ]) {
      const { one, at, ...all } = await stores()
      const met = at(one, name, all[key], () => server.client.set(all.old, textOf(5), { PX: HOUR }))
      await one.get("a")
      met()
      assert.equal((await one.get("a")).n, 5, name)
      assert.equal(await exists(all.old), 0)
    }
  })

  test("a touch of a session that is being moved counts", async () => {
    for (const [name, key] of [
      ["rewrite", "old"],
      ["add", "hashed"],
      ["pttl", "old"],
      ["remove", "old"],
    ]) {
      const { preparing, one, hashed, at, ...all } = await stores()
      const keyOf = { old: all.old, hashed }
      const met = at(one, name, keyOf[key], () => preparing.touch("a", { cookie: cookie(5 * HOUR) }))
      await one.get("a")
      met()
      assert.ok((await server.client.pTTL(hashed)) > 4 * HOUR, name)
    }
  })

  test("a get with freshExpires finds what is moved meanwhile", async () => {
    for (const [name, key] of [
      ["get", "old"],
      ["pttl", "old"],
      ["get", "hashed"],
    ]) {
      const { prefix, two, at, ...all } = await stores()
      const fresh = open(prefix, "migrate", { freshExpires: true })
      const met = at(fresh, name, all[key], () => two.get("a"))
      const session = await fresh.get("a")
      met()
      assert.equal(session.n, 1)
    }
  })

  test("what is ended while it is moved is not there", async () => {
    for (const end of [
      (store) => store.destroyHandle(handleOf("a")),
      (store) => store.set("a", { cookie: { originalMaxAge: HOUR, expires: new Date(0) } }),
      (store) => store.touch("a", { cookie: { expires: new Date(0) } }),
      (store) => store.destroy("a"),
    ]) {
      for (const [name, key] of [
        ["expire", "old"],
        ["expire", "hashed"],
        ["destroy", "hashed"],
      ]) {
        const { one, two, at, ...all } = await stores()
        at(one, name, all[key], () => two.get("a"))
        await end(one)
        assert.equal(await two.get("a"), null)
      }
    }
  })
})

test("every store can be closed", async () => {
  await Promise.all(opened.map((store) => store.close()))
})
