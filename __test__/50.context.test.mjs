import assert from "node:assert/strict"
import { AsyncLocalStorage } from "node:async_hooks"
import { test } from "node:test"

import { RedisStore } from "../index.mjs"
import { called } from "../testing/until.mjs"
import { script } from "./support/script.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const server = ownServer()
const session = { cookie: { originalMaxAge: null } }

/** Runs `code` in another process, where `open` creates a store. */
const opening = (code, url = server.url) =>
  script(`
    const open = (options) => new RedisStore({ url: ${JSON.stringify(url)}, prefix: ${JSON.stringify(ownPrefix())}, ...options })
    ${code}`)

test("every callback runs in its caller's AsyncLocalStorage context", async () => {
  const storage = new AsyncLocalStorage()
  const serializer = {
    stringify: JSON.stringify,
    parse: async (text) => {
      await Promise.resolve()
      return { ...JSON.parse(text), parsedIn: storage.getStore() }
    },
  }
  const stores = [{}, { serializer }].map(
    (options) => new RedisStore({ url: server.url, prefix: ownPrefix(), ...options }),
  )
  const calls = stores.flatMap((store) =>
    [
      ["get", "sid"],
      ["get", "none"],
      ["set", "sid", session],
      ["touch", "sid", session],
      ["destroy", "other"],
      ["length"],
      ["ids"],
      ["all"],
      ["get", 5],
      ["set", "sid", 1n],
    ].map(([method, ...args]) => [store, method, args]),
  )
  await Promise.all(stores.map((store) => store.set("sid", session)))
  const contexts = await Promise.all(
    calls.map(([store, method, args], n) =>
      storage.run(n, () =>
        called((done) => store[method](...args, (_error, value) => done(storage.getStore(), value))),
      ),
    ),
  )
  assert.deepEqual(
    contexts.map(([context]) => context),
    calls.map((_, n) => n),
  )
  const [, found] = await storage.run("here", () => called((done) => stores[1].get("sid", done)))
  assert.equal(found.parsedIn, "here")
  assert.equal(await storage.run("there", () => stores[0].get("sid").then(() => storage.getStore())), "there")
  await Promise.all(stores.map((store) => store.close()))
})

test("a callback that throws twice, or on an error, is an uncaught exception and affects no other callback", async () => {
  const { exitCode, printed } = await opening(`
    const store = open()
    const cookie = { originalMaxAge: null }
    await store.set("sid", { cookie })
    const calls = {}
    const uncaught = []
    process.on("uncaughtException", (error) => uncaught.push(error.message))
    const thrower = (name) => () => {
      calls[name] = (calls[name] ?? 0) + 1
      throw new Error(name)
    }
    store.get("sid", thrower("get"))
    store.set("sid", { cookie }, thrower("set"))
    store.touch("sid", { cookie }, thrower("touch"))
    store.get({}, thrower("invalid"))
    store.length(thrower("length"))
    store.all(thrower("all"))
    const others = await Promise.all([store.get("sid"), store.get("sid"), store.length()])
    while (uncaught.length < 6) await new Promise((resolve) => setTimeout(resolve, 5))
    console.log(JSON.stringify({ calls, uncaught: uncaught.sort(), others: others.length }))
  `)
  assert.equal(exitCode, 0)
  const { calls, uncaught, others } = JSON.parse(printed)
  assert.deepEqual(calls, { all: 2, get: 2, invalid: 1, length: 2, set: 2, touch: 2 })
  assert.deepEqual(uncaught, ["all", "get", "invalid", "length", "set", "touch"])
  assert.equal(others, 3)
})

test("an uncaught exception from a callback ends a process that does not listen for it", async () => {
  const { exitCode, errors } = await opening(`
    open().get("sid", () => { throw new Error("mine") })
  `)
  assert.equal(exitCode, 1)
  assert.match(errors, /Error: mine/)
  assert.doesNotMatch(errors, /panicked/)
})

test("an idle store lets the process end", async () => {
  const used = await opening(`const store = open(); await store.get("sid"); console.log("done")`)
  assert.deepEqual(used, { exitCode: 0, signal: null, printed: "done\n", errors: "" })
  const unused = await opening(`open(); console.log("done")`)
  assert.deepEqual(unused, { exitCode: 0, signal: null, printed: "done\n", errors: "" })
  const down = await opening(`open(); console.log("done")`, "redis://127.0.0.1:1")
  assert.deepEqual(down, { exitCode: 0, signal: null, printed: "done\n", errors: "" })
})

test("a pending request is answered before the process ends", async () => {
  const { printed } = await opening(`
    const store = open()
    store.set("sid", { cookie: {} }, () => store.get("sid", (error, found) => console.log(error, typeof found)))
  `)
  assert.equal(printed, "null object\n")
  const frozen = await startServer()
  process.kill(frozen.pid, "SIGSTOP")
  const late = await opening(
    `open({ commandTimeoutMs: 300 }).get("sid", (error) => console.log(error.code))`,
    frozen.url,
  )
  assert.match(late.printed, /^ERR_REDIS_STORE_(TIMEOUT|CONNECT)\n$/)
  await frozen.stop()
})

test("the class of connect-redis 3 to 6 ignores an error without a callback, as they did", async () => {
  const ended = await opening(
    `
    import factory from ${JSON.stringify(new URL("../index.js", import.meta.url).href)}
    import session from "express-session"
    const Legacy = factory(session)
    const store = new Legacy({ url: "redis://127.0.0.1:1", commandTimeoutMs: 50 })
    store.destroy("sid")
    store.length()
    setTimeout(() => console.log("alive"), 200)
  `,
  )
  assert.deepEqual(ended, { exitCode: 0, signal: null, printed: "alive\n", errors: "" })
})

test("process.exit() with requests pending ends quietly", async () => {
  const ended = await opening(`
    const store = open()
    await store.get("sid")
    for (let n = 0; n < 1000; n++) store.get("sid", () => {})
    setImmediate(() => setImmediate(() => process.exit(3)))
  `)
  assert.deepEqual(ended, { exitCode: 3, signal: null, printed: "", errors: "" })
})

test("an unreferenced store is garbage collected, and its connection closed", async () => {
  const own = await startServer()
  const { printed, errors } = await opening(
    `
    import { setTimeout as delay } from "node:timers/promises"
    import v8 from "node:v8"
    import vm from "node:vm"
    import { createClient } from "redis"
    v8.setFlagsFromString("--expose-gc")
    const gc = vm.runInNewContext("gc")
    const client = await createClient({ url: ${JSON.stringify(own.url)} }).connect()
    const connected = async () => Number(/connected_clients:(\\d+)/.exec(await client.info("clients"))[1])
    for (let n = 0; n < 20; n++) await open().get("sid")
    const most = await connected()
    const deadline = Date.now() + 10_000
    while ((await connected()) > 1 && Date.now() < deadline) {
      gc()
      await delay(10)
    }
    console.log(most, await connected())
    await client.close()
  `,
    own.url,
  )
  assert.equal(`${printed}${errors}`, "21 1\n")
  await own.stop()
})

test("a garbage collection loses no request whose store is referenced only by its callers", async () => {
  const own = await startServer()
  const { printed, errors } = await opening(
    `
    import v8 from "node:v8"
    import vm from "node:vm"
    import { createClient } from "redis"
    v8.setFlagsFromString("--expose-gc")
    const gc = vm.runInNewContext("gc")
    const client = await createClient({ url: ${JSON.stringify(own.url)} }).connect()
    const collecting = setInterval(gc, 5)
    async function calls(options) {
      const store = open(options)
      await store.set("sid", { cookie: {}, n: 1 })
      await client.sendCommand(["CLIENT", "PAUSE", "100", "ALL"])
      const { n } = await store.get("sid")
      await store.close()
      return n
    }
    async function refused() {
      const store = open({ url: "redis://127.0.0.1:1", commandTimeoutMs: 100 })
      const { code } = await store.get("sid").catch((error) => error)
      await store.close()
      return code
    }
    const called = () =>
      new Promise((resolve) => {
        open().ids((error, ids) => resolve(ids))
      })
    console.log(await calls(), await calls({ url: undefined, client }), await refused(), await called())
    clearInterval(collecting)
    await client.close()
  `,
    own.url,
  )
  assert.equal(`${printed}${errors}`, "1 1 ERR_REDIS_STORE_CONNECT [ 'sid' ]\n")
  await own.stop()
})

test("a store keeps no reference to the AsyncLocalStorage context of its first caller", async () => {
  const frozen = await startServer()
  process.kill(frozen.pid, "SIGSTOP")
  const { printed, errors } = await opening(`
    import { AsyncLocalStorage } from "node:async_hooks"
    import { setTimeout as delay } from "node:timers/promises"
    import v8 from "node:v8"
    import vm from "node:vm"
    v8.setFlagsFromString("--expose-gc")
    const gc = vm.runInNewContext("gc")
    const storage = new AsyncLocalStorage()
    const store = open()
    const silent = open({ url: ${JSON.stringify(frozen.url)}, connectTimeoutMs: 30_000, commandTimeoutMs: 30_000 })
    let freed = false
    const registry = new FinalizationRegistry(() => { freed = true })
    function answered() {
      const context = {}
      registry.register(context)
      return new Promise((resolve) => storage.run(context, () => store.get("sid", () => resolve())))
    }
    await answered()
    let pending = true
    silent.get("sid", () => { pending = false })
    const deadline = Date.now() + 10_000
    while (!freed && Date.now() < deadline) {
      await delay(10)
      gc()
    }
    console.log(pending, freed)
    process.exit()
  `)
  assert.equal(`${printed}${errors}`, "true true\n")
  process.kill(frozen.pid, "SIGCONT")
  await frozen.stop()
})

test("async hooks report the end of every request", async () => {
  const { printed, errors } = await opening(`
    import { createHook } from "node:async_hooks"
    import { setTimeout as delay } from "node:timers/promises"
    import v8 from "node:v8"
    import vm from "node:vm"
    v8.setFlagsFromString("--expose-gc")
    const gc = vm.runInNewContext("gc")
    const alive = new Set()
    let begun = 0
    const init = (id, type) => {
      if (type !== "RedisStoreRequest") return
      begun++
      alive.add(id)
    }
    createHook({ init, destroy: (id) => alive.delete(id) }).enable()
    const store = open()
    for (let n = 0; n < 100; n++) await store.get("sid")
    const deadline = Date.now() + 10_000
    while (alive.size > 0 && Date.now() < deadline) {
      gc()
      await delay(10)
    }
    console.log(begun, alive.size)
    await store.close()
  `)
  assert.equal(`${printed}${errors}`, "100 0\n")
})
