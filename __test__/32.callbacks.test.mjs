// Exactly one callback, with an error that has a code, whatever the application's serializers, sessions and
// functions do.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, before, describe, test } from "node:test"
import { setImmediate as turn } from "node:timers/promises"
import { types } from "node:util"

import { RedisStore } from "../index.mjs"
import { startFakeServer } from "./support/fake-server.mjs"
import { script } from "./support/script.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const { isPromise } = types
const require = createRequire(import.meta.url)
const server = ownServer()
const stores = []
after(() => Promise.all(stores.map((store) => store.close())))
const uncaught = []
const listen = (error) => uncaught.push(error)
before(() => process.on("uncaughtException", listen))
after(() => process.off("uncaughtException", listen))

function open(options) {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), commandTimeoutMs: 400, ...options })
  stores.push(store)
  return store
}

/**
 * The arguments of the callback of one call. Checks that it is called once: two turns and another request later
 * there is no second call.
 */
async function once(store, call) {
  const seen = []
  await new Promise((resolve) => {
    call((...args) => {
      seen.push(args)
      resolve()
    })
  })
  await store.ping()
  await turn()
  await turn()
  assert.equal(seen.length, 1)
  assert.deepEqual(uncaught, [])
  return seen[0]
}

const FAR = new Date(Date.now() + 1e9).toISOString()
const stored = { cookie: { expires: FAR }, n: 1 }
const frozen = (text) => {
  const session = JSON.parse(text)
  Object.freeze(session.cookie)
  return Object.freeze(session)
}
const parsing = (parse, options) => ({ serializer: { stringify: JSON.stringify, parse }, ...options })
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({ ...stored }, {})
  return { proxy, revoke }
}

describe("get", () => {
  const CASES = {
    "a PTTL beyond the range of dates": [
      { freshExpires: true },
      "ERR_REDIS_STORE_DECODE",
      Number.MAX_SAFE_INTEGER - Date.now(),
    ],
    "a frozen session with maxLifetime": [parsing(frozen, { maxLifetime: 1000 }), "ERR_REDIS_STORE_DECODE"],
    "a frozen session with freshExpires": [parsing(frozen, { freshExpires: true }), "ERR_REDIS_STORE_DECODE"],
    "a frozen session": [parsing(frozen), undefined],
    "a throwing getter then": [
      parsing(() =>
        // oxlint-disable-next-line unicorn/no-thenable
        Object.defineProperty({}, "then", {
          get() {
            throw new Error("mine")
          },
        }),
      ),
      "ERR_REDIS_STORE_DECODE",
    ],
    "a then that throws": [
      parsing(() => ({
        // oxlint-disable-next-line unicorn/no-thenable
        then() {
          throw new Error("mine")
        },
      })),
      "ERR_REDIS_STORE_DECODE",
    ],
    "a thenable that settles three times": [
      parsing((text) => ({
        // oxlint-disable-next-line unicorn/no-thenable
        then(resolve, reject) {
          resolve(JSON.parse(text))
          reject(new Error("mine"))
          resolve(null)
        },
      })),
      undefined,
    ],
    "a parse that never settles": [parsing(() => new Promise(() => {})), "ERR_REDIS_STORE_TIMEOUT"],
    "a parse that rejects with nothing": [parsing(() => Promise.reject()), "ERR_REDIS_STORE_DECODE"],
    "a revoked Proxy": [
      parsing(() => {
        const { proxy, revoke } = revoked()
        revoke()
        return proxy
      }),
      "ERR_REDIS_STORE_DECODE",
    ],
  }
  for (const [name, [options, code, pttl]] of Object.entries(CASES)) {
    test(name, async () => {
      const store = open(options)
      await store.set("a", stored)
      if (pttl !== undefined) await server.client.pExpire(`${store.prefix}a`, pttl)
      const [error, session] = await once(store, (done) => store.get("a", done))
      assert.equal(error?.code, code)
      if (code === undefined) assert.equal(session.n, 1)
      else assert.equal(session, null)
    })
  }
})

describe("set", () => {
  test("of a session that is revoked before the reply comes is done", async () => {
    for (const onConflict of ["overwrite", "merge"]) {
      const store = open({ onConflict })
      const { proxy, revoke } = revoked()
      const result = await once(store, (done) => {
        store.set("a", proxy, done)
        revoke()
      })
      assert.deepEqual(result, [null, null])
    }
  })
  test("of a session with a getter that throws is an error", async () => {
    const store = open()
    const session = Object.defineProperty({ ...stored }, "req", {
      get() {
        throw new Error("mine")
      },
    })
    const [error] = await once(store, (done) => store.set("a", session, done))
    assert.equal(error.message, "mine")
  })
  test("and touch with a ttl function that throws undefined are errors", async () => {
    for (const thrown of [undefined, null, 0, "", false]) {
      const store = open({
        ttl: () => {
          throw thrown
        },
      })
      for (const method of ["set", "touch"]) {
        const [error] = await once(store, (done) => store[method]("a", stored, done))
        assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
        await assert.rejects(store[method]("a", stored), { code: "ERR_REDIS_STORE_OPTIONS" })
      }
    }
  })
  test("of a session that cannot be serialized is ERR_REDIS_STORE_ENCODE, with the serializer's error as cause", async () => {
    const store = open()
    const circular = {}
    circular.self = circular
    for (const [session, cause] of [
      [{ n: 1n }, TypeError],
      [circular, TypeError],
      [() => {}, undefined],
    ]) {
      const [error] = await once(store, (done) => store.set("a", session, done))
      assert.equal(error.code, "ERR_REDIS_STORE_ENCODE")
      assert.equal(error.cause?.constructor, cause)
    }
    const [lone] = await once(open(), (done) =>
      open({ serializer: { parse: JSON.parse, stringify: () => "\ud800" } }).set("a", stored, done),
    )
    assert.equal(lone.code, "ERR_REDIS_STORE_ENCODE")
  })
})

describe("onConflict", () => {
  const load = async (store) => store.createSession({ sessionID: "a", sessionStore: store }, await store.get("a"))
  const two = async (onConflict, change = (session, n) => (session.by = n)) => {
    const store = open({ onConflict })
    await store.set("a", { cookie: {}, visits: 1 })
    const sessions = [await load(store), await load(store)]
    sessions.forEach(change)
    await store.set("a", sessions[0])
    return { store, last: sessions[1] }
  }
  for (const wrong of [null, 5, undefined, "text", []]) {
    test(`a function that returns ${JSON.stringify(wrong)} is an error, and nothing is written`, async () => {
      const { store, last } = await two(() => wrong)
      const [error] = await once(store, (done) => store.set("a", last, done))
      assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
      assert.equal((await store.get("a")).by, 0)
    })
  }
  test("a function that throws undefined is an error", async () => {
    const { store, last } = await two(() => Promise.reject())
    const [error] = await once(store, (done) => store.set("a", last, done))
    assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
  })
  test("a function that saves the session itself causes no deadlock", async () => {
    let inner
    const { store, last } = await two(async (_base, mine) => {
      inner = await store.set("a", last).catch((error) => error)
      return mine
    })
    const outcome = await store.set("a", last).then(
      () => "saved",
      ({ code }) => code,
    )
    assert.equal(inner.code, "ERR_REDIS_STORE_CONFLICT")
    assert.equal(outcome, "saved")
  })
  test("two requests that save the same text are a conflict", async () => {
    const same = (session) => session.visits++
    const refusing = await two("error", same)
    await assert.rejects(refusing.store.set("a", refusing.last), { code: "ERR_REDIS_STORE_CONFLICT" })
    const counting = (base, mine, theirs) => ({ ...theirs, visits: theirs.visits + mine.visits - base.visits })
    const { store, last } = await two(counting, same)
    await store.set("a", last)
    assert.equal((await store.get("a")).visits, 3)
  })
  test("a repeated save that finds a third value is a conflict, and one that finds its own value succeeds", async () => {
    for (const [found, code] of [
      ["third", "ERR_REDIS_STORE_CONFLICT"],
      ["own", undefined],
    ]) {
      let now = JSON.stringify({ cookie: {}, visits: 1 })
      let swaps = 0
      const fake = await startFakeServer((words, _connection, socket) => {
        if (words[0] === "GET") return `$${now.length}\r\n${now}\r\n`
        if (words[0] !== "EVALSHA") return "$-1\r\n"
        if (++swaps === 1) {
          now = found === "own" ? words[5] : JSON.stringify({ cookie: {}, visits: 9 })
          socket.destroy()
          return ""
        }
        return `$${now.length}\r\n${now}\r\n`
      })
      let calls = 0
      const store = open({ url: fake.url, commandTimeoutMs: 5000, onConflict: (_base, mine) => (calls++, mine) })
      const session = await load(store)
      session.visits++
      const [error] = await once(store, (done) => store.set("a", session, done))
      assert.deepEqual([error?.code, calls, swaps], [code, 0, 2])
      await store.close()
      fake.stop()
    }
  })
})

test("the error of a late touch does not mention a conflict of writes", async () => {
  let swaps = 0
  const text = JSON.stringify({ cookie: {}, n: 1 })
  const fake = await startFakeServer((words) => {
    if (words[0] === "GET") return `$${text.length}\r\n${text}\r\n`
    if (words[0] === "EVALSHA") return (swaps++, "$2\r\n{}\r\n")
    return words[0] === "PEXPIRE" ? "" : "$-1\r\n"
  })
  const store = open({ url: fake.url, commandTimeoutMs: 200, maxLifetime: 1000 })
  const session = store.createSession({ sessionID: "a", sessionStore: store }, await store.get("a"))
  const error = await store.touch("a", session).catch((failure) => failure)
  assert.equal(swaps, 1)
  assert.equal(error.code, "ERR_REDIS_STORE_TIMEOUT")
  assert.doesNotMatch(error.message, /conflict/)
  await store.close()
  fake.stop()
})

test("fake timers, also those of process and performance, stop no request", async () => {
  const { printed, errors } = await script(`
    import { setTimeout as real } from "node:timers/promises"
    const wait = real
    const store = new RedisStore({ url: "${server.url}", prefix: "${ownPrefix()}", onConflict: "merge", commandTimeoutMs: 3000 })
    const client = { get: async () => null, set: async () => "OK", del: async () => 1 }
    const other = new RedisStore({ client })
    for (const name of ["setTimeout", "setInterval", "setImmediate", "clearTimeout", "clearImmediate", "queueMicrotask"]) {
      globalThis[name] = () => {}
    }
    process.nextTick = () => {}
    globalThis.performance = { now: () => 0 }
    const all = []
    for (let n = 0; n < 20; n++) all.push(store.set("s" + n, { cookie: {} }), store.get("s" + n), other.get("x"))
    await Promise.all(all)
    console.log((await store.all()).length)
    await store.close()
  `)
  assert.equal(printed, "20\n", errors)
})

test("lib takes timers and clocks from one file only", () => {
  const { readFileSync, readdirSync } = require("node:fs")
  const { join } = require("node:path")
  const root = new URL("../lib/", import.meta.url).pathname
  for (const name of readdirSync(root, { recursive: true })) {
    if (!name.endsWith(".js") || name === "timers.js") continue
    const text = readFileSync(join(root, name), "utf8")
    const names =
      /\b(setTimeout|setInterval|setImmediate|clearTimeout|clearInterval|clearImmediate|nextTick|queueMicrotask|performance)\b/g
    const imported = /const \{([^}]*)\} = require\("[./]*\/timers\.js"\)/.exec(text)?.[1] ?? ""
    for (const [found] of text.matchAll(names)) {
      assert.ok(imported.includes(found), `${name}: ${found}`)
      assert.doesNotMatch(text, new RegExp(`process\\.${found}|globalThis\\.${found}`))
    }
  }
})

describe("a method with a callback", () => {
  const METHODS = {
    get: (store, callback) => store.get("a", callback),
    set: (store, callback) => store.set("a", stored, callback),
    touch: (store, callback) => store.touch("a", stored, callback),
    destroy: (store, callback) => store.destroy("a", callback),
    clear: (store, callback) => store.clear(callback),
    length: (store, callback) => store.length(callback),
    ids: (store, callback) => store.ids(callback),
    all: (store, callback) => store.all(callback),
    ping: (store, callback) => store.ping(callback),
    close: (store, callback) => store.close(callback),
  }

  for (const [name, call] of Object.entries(METHODS)) {
    test(`returns a promise that resolves after the callback: ${name}`, async () => {
      let calls = 0
      const promise = call(open(), () => calls++)
      assert.ok(isPromise(promise))
      assert.equal(calls, 0)
      assert.equal(await promise, undefined)
      assert.equal(calls, 1)
    })
  }

  test("returns a promise that does not reject", async () => {
    const store = open()
    const codes = []
    const failed = (error) => codes.push(error.code)
    await store.get({}, failed)
    await store.set("a", 1n, failed)
    assert.deepEqual(codes, ["ERR_REDIS_STORE_OPTIONS", "ERR_REDIS_STORE_ENCODE"])
  })

  test("returns a promise that does not wait for calls of its own callback", async () => {
    const store = open()
    let inner
    await store.set("a", stored, () => {
      inner = store.get("a", () => {})
    })
    assert.ok(isPromise(inner))
    await inner
  })

  test("returns a promise that an onConflict function can await", async () => {
    const onConflict = async (_base, mine) => {
      await store.get("b", () => {})
      return mine
    }
    const store = open({ onConflict })
    await store.set("a", stored)
    const load = async () => {
      const session = await store.get("a")
      return store.createSession({ sessionID: "a", sessionStore: store }, session)
    }
    const [one, two] = [await load(), await load()]
    one.n = 2
    two.n = 3
    await store.set("a", one)
    await store.set("a", two)
    assert.equal((await store.get("a")).n, 3)
  })
})
