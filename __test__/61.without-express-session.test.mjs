// The package in a folder without express-session, as under @fastify/session.
import assert from "node:assert/strict"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before } from "node:test"
import { fileURLToPath, pathToFileURL } from "node:url"

import { installPackage } from "./support/examples.mjs"
import { neighbour } from "./support/matrix.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const root = fileURLToPath(new URL("..", import.meta.url))

const server = ownServer()
const closers = []
let folder

/** What the application's own modules find. */
const load = (name) => createRequire(join(folder, "app.js"))(name)

before(() => {
  folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const modules = join(folder, "node_modules")
  installPackage(join(modules, "connect-redis-native"))
  symlinkSync(join(root, "node_modules", "redis"), join(modules, "redis"), "junction")
})

after(async () => {
  for (const close of closers.toReversed()) await close()
  rmSync(folder, { recursive: true, force: true })
})

neighbour("a folder without express-session", (test) => {
  test("express-session is not there, and the store is an EventEmitter", async () => {
    assert.throws(() => load("express-session"), { code: "MODULE_NOT_FOUND" })
    const { RedisStore } = load("connect-redis-native")
    assert.ok(RedisStore.prototype instanceof load("node:events"))
    const { default: esm } = await import(pathToFileURL(join(folder, "node_modules/connect-redis-native/index.mjs")))
    assert.equal(esm, RedisStore)
  })

  test("a store by a client is native and keeps sessions", async () => {
    const client = load("redis").createClient({ url: server.url })
    const { RedisStore } = load("connect-redis-native")
    const store = new RedisStore({ client, prefix: ownPrefix() })
    closers.push(() => store.close())
    assert.equal(await store.set("one", { cookie: { originalMaxAge: null }, visits: 1 }), null)
    assert.deepEqual([(await store.all())[0].visits, store.native], [1, true])
  })

  test("a copy of what was loaded does not bring back what was destroyed, and saves what was evicted", async () => {
    const { RedisStore } = load("connect-redis-native")
    const store = new RedisStore({ url: server.url, prefix: ownPrefix() })
    closers.push(() => store.close())
    for (const [remove, isThere] of [
      [() => store.destroy("one"), false],
      [() => server.client.del(`${store.prefix}one`), true],
    ]) {
      await store.set("one", { cookie: { originalMaxAge: null } })
      const copy = { ...(await store.get("one")), visits: 1 }
      await remove()
      await store.set("one", copy)
      assert.equal((await store.get("one")) !== null, isThere)
    }
  })

  test("an express-session elsewhere that is given such a store says so at once", () => {
    const { RedisStore } = load("connect-redis-native")
    const store = new RedisStore({ url: server.url })
    closers.push(() => store.close())
    const session = createRequire(import.meta.url)("express-session")
    assert.throws(() => session({ store, secret: "test", resave: false, saveUninitialized: false }), {
      name: "TypeError",
      code: "ERR_REDIS_STORE_OPTIONS",
      message: /express-session that it could not find.*install both in one node_modules/,
    })
  })

  test("an express-session that is broken is not taken for one that is missing", () => {
    const broken = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    closers.push(() => rmSync(broken, { recursive: true, force: true }))
    const modules = join(broken, "node_modules")
    installPackage(join(modules, "connect-redis-native"))
    mkdirSync(join(modules, "express-session"))
    writeFileSync(join(modules, "express-session", "index.js"), 'require("what-is-not-there")\n')
    assert.throws(() => createRequire(join(broken, "app.js"))("connect-redis-native"), /what-is-not-there/)
  })
})
