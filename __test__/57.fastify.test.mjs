// @fastify/session, in a folder of its own: there is no express-session there.
import assert from "node:assert/strict"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { after, before } from "node:test"
import { fileURLToPath, pathToFileURL } from "node:url"

import { until } from "../testing/until.mjs"
import { neighbour } from "./support/matrix.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { browser } from "./support/web.mjs"

const root = fileURLToPath(new URL("..", import.meta.url))
const { files } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"))
const version = (name) => `${name} ${packages[`node_modules/${name}`].version}`

const server = ownServer()
const closers = []
let folder

/** What the application's own modules find. */
const load = (name) => createRequire(join(folder, "app.js"))(name)

before(() => {
  folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const modules = join(folder, "node_modules")
  install(join(modules, "connect-redis-native"))
  for (const name of ["fastify", "@fastify/cookie", "@fastify/session", "redis"]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(root, "node_modules", name), join(modules, name), "junction")
  }
})

after(async () => {
  for (const close of closers.toReversed()) await close()
  rmSync(folder, { recursive: true, force: true })
})

/** The package's files at `path`; a link would find what is installed beside the link's target. */
function install(path) {
  const binaries = readdirSync(root).filter((name) => name.endsWith(".node"))
  for (const name of ["package.json", ...files, ...binaries]) {
    cpSync(join(root, name), join(path, name), { recursive: true })
  }
}

neighbour(`${version("@fastify/session")} under ${version("fastify")}, without express-session`, (test) => {
  async function app(options, sessionOptions) {
    const { RedisStore } = load("connect-redis-native")
    const store = new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
    const web = load("fastify")()
    web.register(load("@fastify/cookie"))
    web.register(load("@fastify/session"), {
      store,
      secret: "a secret of 32 characters or more",
      saveUninitialized: false,
      cookie: { secure: false, maxAge: 600_000 },
      ...sessionOptions,
    })
    web.get("/visit", async (req) => {
      req.session.visits = (req.session.visits ?? 0) + 1
      return { visits: req.session.visits, id: req.session.sessionId }
    })
    web.get("/look", async (req) => ({ visits: req.session.visits ?? 0, user: req.session.user ?? null }))
    web.get("/sign-in", async (req) => {
      await req.session.regenerate(["visits"])
      req.session.user = "ada"
      return { id: req.session.sessionId }
    })
    web.get("/sign-out", async (req) => {
      await req.session.destroy()
      return {}
    })
    web.get("/reload", async (req) => {
      req.session.visits = -1
      await req.session.reload()
      return { visits: req.session.visits }
    })
    web.setErrorHandler((error, _req, reply) => reply.status(503).send({ code: error.code }))
    const url = await web.listen({ host: "127.0.0.1", port: 0 })
    closers.push(async () => {
      await web.close()
      await store.close()
    })
    return { go: browser(url).go, store }
  }

  test("express-session is not there, and the store is an EventEmitter", async () => {
    assert.throws(() => load("express-session"), { code: "MODULE_NOT_FOUND" })
    const { RedisStore } = load("connect-redis-native")
    assert.ok(RedisStore.prototype instanceof load("node:events"))
    const { default: esm } = await import(pathToFileURL(join(folder, "node_modules/connect-redis-native/index.mjs")))
    assert.equal(esm, RedisStore)
  })

  test("counts visits, signs in with a new id, signs out for good", async () => {
    const { go, store } = await app()
    assert.equal(store.native, true)
    const { id: anonymous } = await go("/visit")
    assert.equal((await go("/visit")).visits, 2)
    assert.deepEqual(await store.ids(), [anonymous])
    const { id } = await go("/sign-in")
    assert.notEqual(id, anonymous)
    assert.deepEqual(await store.ids(), [id])
    assert.deepEqual((({ visits, user }) => ({ visits, user }))(await go("/look")), { visits: 2, user: "ada" })
    assert.equal((await go("/reload")).visits, 2)
    await go("/sign-out")
    assert.equal(await store.length(), 0)
    assert.equal((await go("/look")).user, null)
  })

  test("the key expires with the cookie, and a rolling session moves both", async () => {
    const { go, store } = await app()
    const { id } = await go("/visit")
    const left = () => server.client.pTTL(store.prefix + id)
    assert.ok((await left()) > 590_000 && (await left()) <= 600_000)
    await server.client.pExpire(store.prefix + id, 5000)
    await go("/look")
    await until("the expiry", async () => (await left()) > 590_000)
  })

  test("by a client, too", async () => {
    const client = load("redis").createClient({ url: server.url })
    const prefix = ownPrefix()
    const { RedisStore } = load("connect-redis-native")
    const { go } = await app({ url: undefined, client, prefix })
    await go("/visit")
    const other = new RedisStore({ client, prefix })
    closers.push(() => other.close())
    assert.equal((await other.all())[0].visits, 1)
  })

  test("a Redis that is not there is an error of the request, with its code", async () => {
    const { go } = await app({ url: "redis://127.0.0.1:1", commandTimeoutMs: 100 })
    assert.deepEqual((({ status, code }) => ({ status, code }))(await go("/sign-in")), {
      status: 503,
      code: "ERR_REDIS_STORE_CONNECT",
    })
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
    install(join(modules, "connect-redis-native"))
    mkdirSync(join(modules, "express-session"))
    writeFileSync(join(modules, "express-session", "index.js"), 'require("what-is-not-there")\n')
    assert.throws(() => createRequire(join(broken, "app.js"))("connect-redis-native"), /what-is-not-there/)
  })
})
