import assert from "node:assert/strict"
import { after, beforeEach, describe, test } from "node:test"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { RESET, startProxy } from "../testing/proxy.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const COMMANDS = /^(GET|SET|P?EXPIRE|DEL|UNLINK|MGET|SCAN)$/i

/** What the server saw of one store, without what a connection begins with. */
let seen = []
let monitor
let proxy
const server = ownServer({}, async () => {
  monitor = await createClient({ url: server.url })
    .on("error", () => {})
    .connect()
  await monitor.monitor((line) => {
    const words = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word]) => word)
    if (COMMANDS.test(words[0])) seen.push(words)
  })
  proxy = await startProxy(server.port)
})
after(() => {
  monitor.destroy()
  proxy.stop()
})

/** The next `times` times that the server replies, the connection is reset instead. */
function lose(times) {
  proxy.replies = (data) => {
    if (times-- <= 0) return [data]
    return [RESET]
  }
}

describe("a request whose reply is lost", () => {
  let prefix
  let store
  beforeEach(async () => {
    proxy.replies = undefined
    prefix = ownPrefix()
    store = new RedisStore({ url: proxy.url, prefix })
    await store.set("a", { cookie: {}, n: 0 })
    seen = []
  })
  const sent = () => seen.map(([name, key]) => (name === "SET" && key.endsWith("}") ? "SET marker" : name))
  const n = (number) => ({ cookie: {}, n: number })
  const code = "ERR_REDIS_STORE_CONNECT"

  const REPEATED = {
    get: [() => store.get("a"), ["GET", "GET"], n(0)],
    set: [() => store.set("a", n(1)), ["SET", "SET"], null],
    touch: [() => store.touch("a", n(0)), ["PEXPIRE", "PEXPIRE"], null],
    destroy: [() => store.destroy("a"), ["SET marker", "DEL", "SET marker", "DEL"], null],
    length: [() => store.length(), ["SCAN", "SCAN"], 1],
    ids: [() => store.ids(), ["SCAN", "SCAN"], ["a"]],
  }
  for (const [name, [act, commands, result]] of Object.entries(REPEATED)) {
    test(`${name} is repeated once`, async () => {
      lose(1)
      assert.deepEqual(await act(), result)
      await until("what the server saw", () => seen.length >= commands.length)
      assert.deepEqual(sent(), commands)
      const half = commands.length / 2
      assert.deepEqual(seen.slice(half), seen.slice(0, half))
      await store.close()
    })
  }

  test("all() repeats the command that was lost, not the ones before", async () => {
    let replies = 0
    proxy.replies = (data) => (++replies === 2 ? [RESET] : [data])
    const [found] = await store.all()
    assert.equal(found.n, 0)
    assert.deepEqual(sent(), ["SCAN", "MGET", "MGET"])
    await store.close()
  })

  test("nothing is repeated twice", async () => {
    // A connection begins with a reply that must arrive, or the request would wait for the next one.
    let replies = 0
    proxy.replies = (data) => (/^\$|PONG/.test(data) && ++replies !== 2 ? [RESET] : [data])
    await assert.rejects(store.get("a"), { code })
    assert.deepEqual(sent(), ["GET", "GET"])
    proxy.replies = undefined
    assert.deepEqual(await store.get("a"), n(0))
    await store.close()
  })

  test("a set that a later write of the session follows is not repeated: it might undo that", async () => {
    lose(1)
    const [first, second, read] = await Promise.allSettled([store.set("a", n(1)), store.set("a", n(2)), store.get("a")])
    assert.equal(first.reason.code, code)
    assert.equal(second.status, "fulfilled")
    assert.deepEqual(read.value, n(2))
    assert.deepEqual(
      seen.map(([name, , value]) => (name === "SET" ? JSON.parse(JSON.parse(`"${value}"`)).n : name)),
      [1, 2, "GET", 2, "GET"],
    )
    await store.close()
  })

  test("a set that a destroy follows is not repeated either", async () => {
    lose(1)
    const [set, destroyed, read] = await Promise.allSettled([store.set("a", n(1)), store.destroy("a"), store.get("a")])
    assert.equal(set.reason.code, code)
    assert.equal(destroyed.status, "fulfilled")
    assert.equal(read.value, null)
    assert.deepEqual(sent(), ["SET", "SET marker", "DEL", "GET", "SET marker", "DEL", "GET"])
    await store.close()
  })

  test("what ran into its deadline is not repeated", async () => {
    await store.close()
    store = new RedisStore({ url: proxy.url, prefix, commandTimeoutMs: 300 })
    await store.get("a")
    seen = []
    proxy.replies = () => []
    await assert.rejects(store.set("a", n(1)), { code: "ERR_REDIS_STORE_TIMEOUT" })
    proxy.replies = undefined
    proxy.reset()
    assert.equal((await store.get("a")).n, 1)
    assert.deepEqual(sent(), ["SET", "GET"])
    await store.close()
  })
})
