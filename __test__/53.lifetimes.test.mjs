import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { once } from "node:events"
import { describe, test } from "node:test"

import * as original from "connect-redis"
import session from "express-session"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const server = ownServer()
const MINUTE = 60_000
const HOUR = 60 * MINUTE

const open = (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
const cookie = (ms = HOUR) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })
const ttlOf = (store, sid) => server.client.pTTL(store.prefix + sid)
const textOf = (store, sid) => server.client.get(store.prefix + sid)

/** How often the server ran `command` while `run` did. */
async function count(command, run) {
  const calls = async () => {
    const info = await server.client.info("commandstats")
    return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(info)?.[1] ?? 0)
  }
  const before = await calls()
  await run()
  return (await calls()) - before
}

async function load(store, sid) {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

describe("touchAfter", () => {
  test("a session that was refreshed lately is not refreshed again", async () => {
    const store = open({ touchAfter: 600 })
    await store.set("a", { cookie: cookie() })
    const touches = async () => {
      for (let n = 0; n < 10; n++) await store.touch("a", { cookie: cookie() })
    }
    assert.equal(await count("pexpire", touches), 0)
    // By more than touchAfter later, and by less: both are sent.
    for (const ms of [HOUR + 11 * MINUTE, HOUR / 2]) {
      assert.equal(await count("pexpire", () => store.touch("a", { cookie: cookie(ms) })), 1)
      const ttl = await ttlOf(store, "a")
      assert.ok(ttl <= ms && ttl > ms - MINUTE, `${ttl} ms`)
    }
    assert.equal(await count("pexpire", touches), 1)
    await store.close()
  })

  test("a touch that refreshed counts as a set does, one that found nothing does not", async () => {
    const store = open({ touchAfter: 600 })
    const touch = () => store.touch("a", { cookie: cookie() })
    assert.equal(await count("pexpire", touch), 1)
    assert.equal(await count("pexpire", touch), 1)
    await store.set("a", { cookie: cookie() })
    await store.destroy("a")
    assert.equal(await count("pexpire", touch), 1)
    await store.close()
  })

  test("a session that is destroyed behind its touch, in one batch, is forgotten", async () => {
    const store = open({ touchAfter: 600 })
    const touch = () => store.touch("a", { cookie: cookie() })
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie() }))
    await Promise.all([touch(), store.destroy("a")])
    assert.equal(await count("pexpire", touch), 1)
    await store.close()
  })

  test("a get says whether another process has refreshed the session", async () => {
    const theirs = open({ touchAfter: 600 })
    const { prefix } = theirs
    await theirs.set("a", { cookie: cookie() })
    for (const [leftMs, touches] of [
      [undefined, 0],
      [HOUR - 11 * MINUTE, 1],
      [HOUR - 5 * MINUTE, 0],
      // It lives longer than it is to: the touch shortens that.
      [2 * HOUR, 1],
      [-1, 1],
    ]) {
      if (leftMs > 0) await server.client.pExpire(`${prefix}a`, leftMs)
      else if (leftMs !== undefined) await server.client.persist(`${prefix}a`)
      const ours = open({ prefix, touchAfter: 600 })
      const requests = async () => {
        for (let n = 0; n < 10; n++) {
          assert.notEqual(await ours.get("a"), null)
          await ours.touch("a", { cookie: cookie() })
        }
      }
      const times = await count("pttl", async () => {
        assert.equal(await count("pexpire", requests), touches, `${leftMs}`)
      })
      assert.equal(times, 1)
      await ours.close()
    }
    assert.equal(await count("pttl", async () => assert.equal(await theirs.get("none"), null)), 1)
    await theirs.close()
  })

  test("a get without touchAfter asks for no expiry", async () => {
    const store = open()
    await store.set("a", { cookie: cookie() })
    assert.equal(await count("pttl", () => store.get("a")), 0)
    await store.close()
  })

  test("four processes together send about one touch a window", async () => {
    const prefix = ownPrefix()
    await server.client.set(`${prefix}a`, JSON.stringify({ cookie: cookie() }), { PX: HOUR })
    const module = new URL("support/touching.mjs", import.meta.url)
    const others = Array.from({ length: 4 }, () => fork(module, [server.url, prefix]))
    await Promise.all(others.map((other) => once(other, "message")))
    const startedAt = performance.now()
    let touches = 0
    touches += await count("pexpire", async () => {
      const windows = () => performance.now() - startedAt > 4000
      await until("four windows", windows, 20_000)
    })
    const windows = (performance.now() - startedAt) / 810
    const requests = others.map(async (other) => {
      other.send("stop")
      return (await once(other, "message"))[0]
    })
    for (const count of await Promise.all(requests)) assert.ok(count > 10, `${count} requests`)
    assert.ok(touches > 0 && touches < 2 * windows, `${touches} touches in ${windows} windows`)
  })

  test("one that is not less than ttl is refused", () => {
    for (const options of [
      { touchAfter: 86400 },
      { ttl: 60, touchAfter: 61 },
      { touchAfter: -1 },
      { touchAfter: "soon" },
    ]) {
      assert.throws(() => open(options), { code: "ERR_REDIS_STORE_OPTIONS", message: /"touchAfter"/ })
    }
  })
})

describe("freshExpires", () => {
  test("a session that was only touched says when it really expires", async () => {
    const stale = cookie(10 * MINUTE)
    for (const [freshExpires, about] of [
      [true, HOUR],
      [false, 10 * MINUTE],
    ]) {
      const store = open({ freshExpires })
      await store.set("a", { cookie: stale })
      await store.touch("a", { cookie: cookie() })
      const { expires } = (await store.get("a")).cookie
      assert.equal(typeof expires, "string")
      const left = new Date(expires) - Date.now()
      assert.ok(left <= about && left > about - MINUTE, `${left} ms`)
      await store.close()
    }
  })

  test("one without an expiry stays without, a miss is a miss, and an error comes once", async () => {
    const store = open({ freshExpires: true })
    await store.set("a", { cookie: { originalMaxAge: null, expires: null } })
    assert.equal((await store.get("a")).cookie.expires, null)
    assert.equal(await store.get("b"), null)
    await server.client.lPush(`${store.prefix}list`, "x")
    await assert.rejects(store.get("list"), { code: "ERR_REDIS_STORE_SERVER" })
    let calls = 0
    await new Promise((resolve) => {
      store.get("list", () => {
        calls++
        store.get("a", resolve)
      })
    })
    assert.equal(calls, 1)
    await store.close()
  })

  test("express-session takes it for its own", async () => {
    const store = open({ freshExpires: true })
    await store.set("a", { cookie: cookie(10 * MINUTE) })
    await store.touch("a", { cookie: cookie() })
    const { maxAge } = (await load(store, "a")).cookie
    assert.ok(maxAge > HOUR - MINUTE, `${maxAge} ms`)
    await store.close()
  })
})

describe("maxLifetime", () => {
  /** As if the session had been created so long ago. */
  async function age(store, sid, ms) {
    const text = await textOf(store, sid)
    const aged = text.replace(/"~created":\d+/, `"~created":${Date.now() - ms}`)
    assert.notEqual(aged, text)
    await server.client.set(store.prefix + sid, aged, { expiration: "KEEPTTL" })
  }

  test("a session lives no longer than that, however often it is saved or touched", async () => {
    const store = open({ maxLifetime: 30 * 60 })
    const bounded = async (ms) => {
      const ttl = await ttlOf(store, "a")
      assert.ok(ttl <= ms && ttl > ms - MINUTE, `${ttl} ms, not ${ms}`)
    }
    await store.set("a", { cookie: cookie() })
    await bounded(30 * MINUTE)
    await age(store, "a", 20 * MINUTE)
    const loaded = await load(store, "a")
    await store.touch("a", loaded)
    await bounded(10 * MINUTE)
    loaded.n = 1
    await store.set("a", loaded)
    await bounded(10 * MINUTE)
    await age(store, "a", 30 * MINUTE)
    await store.touch("a", await (async () => loaded)())
    assert.equal(await store.get("a"), null)
    assert.equal(await textOf(store, "a"), null)
    await store.close()
  })

  test("the application does not see when it was created, not even in all()", async () => {
    const store = open({ maxLifetime: 60 })
    await store.set("a", { cookie: cookie(), n: 1 })
    assert.match(await textOf(store, "a"), /^\{"~created":\d+,/)
    assert.deepEqual(Object.keys(await store.get("a")), ["cookie", "n"])
    assert.deepEqual(Object.keys(await load(store, "a")), ["cookie", "n"])
    const [only] = await store.all()
    assert.deepEqual(Object.keys(only), ["cookie", "n", "id"])
    await store.set("empty", {})
    assert.deepEqual(await store.get("empty"), {})
    await age(store, "empty", HOUR)
    const warnings = []
    const warned = (warning) => warnings.push(warning.code)
    process.on("warning", warned)
    assert.equal((await store.all()).length, 1)
    await new Promise(setImmediate)
    process.off("warning", warned)
    assert.deepEqual(warnings, [])
    await store.close()
  })

  test("a session of connect-redis counts from the first request that it makes here", async () => {
    const store = open({ maxLifetime: 600 })
    const theirs = new original.RedisStore({ client: server.client, prefix: store.prefix })
    await theirs.set("a", { cookie: cookie(), n: 1 })
    const loaded = await load(store, "a")
    await store.touch("a", loaded)
    assert.match(await textOf(store, "a"), /^\{"~created":\d+,/)
    assert.ok((await ttlOf(store, "a")) <= 10 * MINUTE)
    // Not again: it would begin anew with every touch.
    const text = await textOf(store, "a")
    await store.touch("a", loaded)
    await store.touch("a", await load(store, "a"))
    assert.equal(await textOf(store, "a"), text)
    await store.close()
  })

  test("what others have written meanwhile is not written over by a touch", async () => {
    const store = open({ maxLifetime: 600 })
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie(), n: 1 }))
    const loaded = await load(store, "a")
    await server.client.set(`${store.prefix}a`, JSON.stringify({ cookie: cookie(), n: 2 }))
    await store.touch("a", loaded)
    assert.equal((await store.get("a")).n, 2)
    assert.ok((await ttlOf(store, "a")) <= 10 * MINUTE)
    await store.close()
  })

  test("wrong ones are refused", async () => {
    for (const maxLifetime of [0, -1, Number.NaN, "soon"]) {
      assert.throws(() => open({ maxLifetime }), { code: "ERR_REDIS_STORE_OPTIONS", message: /"maxLifetime"/ })
    }
    const serializer = { stringify: () => "no JSON", parse: () => ({}) }
    const store = open({ maxLifetime: 60, serializer })
    await assert.rejects(store.set("a", {}), { code: "ERR_REDIS_STORE_OPTIONS", message: /"maxLifetime"/ })
    await store.close()
  })
})

test("connect-redis and a store with every option on work on the same sessions", async () => {
  const prefix = ownPrefix()
  const options = { onConflict: "merge", touchAfter: 60, freshExpires: true, maxLifetime: 3600 }
  const ours = open({ prefix, ...options })
  const theirs = new original.RedisStore({ client: server.client, prefix })
  const theirLoad = async () => {
    const data = await theirs.get("a")
    return session.Store.prototype.createSession.call(theirs, { sessionID: "a", sessionStore: theirs }, data)
  }
  await theirs.set("a", { cookie: cookie(), log: ["theirs"] })
  for (let round = 0; round < 10; round++) {
    const mine = await load(ours, "a")
    mine.log.push(`ours ${round}`)
    await ours.set("a", mine)
    await ours.touch("a", mine)
    const other = await theirLoad()
    assert.deepEqual(other.log, mine.log)
    other.log.push(`theirs ${round}`)
    await theirs.set("a", other)
    await theirs.touch("a", other)
  }
  assert.equal((await ours.get("a")).log.length, 21)
  assert.deepEqual(await ours.ids(), ["a"])
  // At once, on different keys: what connect-redis writes over is what ours has merged, and never more.
  const [mine, other] = [await load(ours, "a"), await theirLoad()]
  other.theirs = 1
  mine.ours = 1
  await theirs.set("a", other)
  await ours.set("a", mine)
  const now = await theirs.get("a")
  assert.deepEqual([now.ours, now.theirs], [1, 1])
  await ours.destroy("a")
  assert.equal(await theirs.get("a"), null)
  await ours.close()
})
