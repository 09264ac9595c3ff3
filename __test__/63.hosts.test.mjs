// A logout is final, and expired sessions are written, with every framework that uses a store.
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { createRequire } from "node:module"
import { after, describe, test } from "node:test"

import { Controller, Get, Module, Req } from "@nestjs/common"
import { NestFactory } from "@nestjs/core"
import { FastifyAdapter } from "@nestjs/platform-fastify"
import { auth } from "express-openid-connect"
import express from "express"
import session from "express-session"
import Koa from "koa"
import koaGenericSession from "koa-generic-session"
import { createSession } from "koa-session"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { browser, serve } from "./support/web.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const ROUNDS = 200
const HOUR = 3_600_000
const SECRET = "a secret of 32 characters or more"
const closers = []
after(async () => {
  for (const close of closers.toReversed()) await close()
})

/** Holds requests with loaded sessions until the test releases them. */
class Gate {
  #waiting = []

  get waiting() {
    return this.#waiting.length
  }

  wait = () => new Promise((resolve) => this.#waiting.push(resolve))

  async release(count) {
    await until(`${count} requests`, () => this.#waiting.length === count)
    for (const go of this.#waiting.splice(0)) go()
  }
}

/** The routes of every app. `session` is that of its framework. */
const ROUTES = {
  "/sign-in": async ({ session }) => {
    session.user = "ada"
  },
  "/look": async ({ session }) => ({ user: session?.user ?? null, keys: Object.keys(session ?? {}) }),
  "/sign-out": ({ end }) => end(),
}

async function work(path, call, gate) {
  if (!path.startsWith("/add/")) return (await ROUTES[path](call)) ?? {}
  const { session } = call
  const own = session.user
  await gate.wait()
  session[path.slice("/add/".length)] = true
  return { own }
}

const maxAge = HOUR

const HOSTS = {
  "express-session under Express": async (store, gate) => {
    const app = express()
    app.use(session({ store, secret: SECRET, resave: false, saveUninitialized: false, cookie: { maxAge } }))
    app.use((req, res, next) => {
      const end = () => new Promise((resolve) => req.session.destroy(resolve))
      work(req.path, { session: req.session, end }, gate).then((answer) => res.json(answer ?? {}), next)
    })
    return serving(app)
  },
  "@fastify/session under Fastify": async (store, gate) => {
    const app = require("fastify")()
    app.register(require("@fastify/cookie"))
    app.register(require("@fastify/session"), {
      store,
      secret: SECRET,
      saveUninitialized: false,
      cookie: { secure: false, maxAge },
    })
    app.get("/*", async (req) => {
      const end = async () => {
        await req.session.destroy()
      }
      return work(req.url, { session: req.session, end }, gate)
    })
    closers.push(() => app.close())
    return app.listen({ host: "127.0.0.1", port: 0 })
  },
  "koa-session under Koa": async (store, gate) => {
    const app = new Koa()
    app.keys = [SECRET]
    const adapter = {
      get: (id) => store.get(id),
      set: (id, value) => store.set(id, value),
      destroy: (id) => store.destroy(id),
    }
    app.use(createSession({ store: adapter, maxAge }, app))
    app.use(koaWork(gate))
    return serving(app.callback())
  },
  "koa-generic-session under Koa": async (store, gate) => {
    const app = new Koa()
    app.keys = [SECRET]
    const adapter = {
      get: (id) => store.get(id),
      set: (id, value) => store.set(id, value),
      destroy: (id) => store.destroy(id),
    }
    app.use(koaGenericSession({ store: adapter, cookie: { maxAge } }))
    app.use(koaWork(gate))
    return serving(app.callback())
  },
  "express-openid-connect under Express": async (store, gate) => {
    const app = express()
    app.use(
      auth({
        authRequired: false,
        issuerBaseURL: "http://127.0.0.1:1",
        baseURL: "http://127.0.0.1",
        clientID: "test",
        secret: SECRET,
        session: { store, cookie: { secure: false } },
        routes: { login: false, logout: false, callback: false },
      }),
    )
    app.use((req, res, next) => {
      const end = async () => {
        req.appSession = undefined
      }
      work(req.path, { session: req.appSession, end }, gate).then((answer) => res.json(answer ?? {}), next)
    })
    return serving(app)
  },
  "NestJS over Express": async (store, gate) => {
    const app = await nest(gate)
    app.use(session({ store, secret: SECRET, resave: false, saveUninitialized: false, cookie: { maxAge } }))
    return listening(app)
  },
  "NestJS over Fastify": async (store, gate) => {
    const app = await nest(gate, new FastifyAdapter())
    await app.register(require("@fastify/cookie"))
    await app.register(require("@fastify/session"), {
      store,
      secret: SECRET,
      saveUninitialized: false,
      cookie: { secure: false, maxAge },
    })
    return listening(app)
  },
  "plain get and set": async (store, gate) => {
    const { createServer } = await import("node:http")
    let next = 0
    const app = createServer(async (req, res) => {
      const id = /sid=([^;]*)/.exec(req.headers.cookie ?? "")?.[1] ?? `s${next++}`
      const loaded = (await store.get(id)) ?? {}
      // As most applications do.
      const copy = { ...loaded }
      let ended = false
      const end = async () => {
        ended = true
        await store.destroy(id)
      }
      const answer = await work(req.url, { session: copy, end }, gate)
      if (!ended && req.url !== "/look") await store.set(id, copy)
      res.setHeader("set-cookie", `sid=${id}`).end(JSON.stringify(answer))
    })
    return serving((...args) => app.emit("request", ...args))
  },
}

function koaWork(gate) {
  return async (ctx) => {
    const end = async () => {
      ctx.session = null
    }
    ctx.body = await work(ctx.path, { session: ctx.session, end }, gate)
  }
}

async function nest(gate, ...adapter) {
  class Sessions {
    handle(req) {
      const end = () => new Promise((resolve) => req.session.destroy(resolve))
      return work(req.url, { session: req.session, end }, gate)
    }
  }
  Get(["sign-in", "look", "sign-out", "add/:key"])(
    Sessions.prototype,
    "handle",
    Object.getOwnPropertyDescriptor(Sessions.prototype, "handle"),
  )
  Req()(Sessions.prototype, "handle", 0)
  Controller()(Sessions)
  class App {}
  Module({ controllers: [Sessions] })(App)
  return NestFactory.create(App, ...adapter, { logger: false })
}

async function listening(app) {
  closers.push(() => app.close())
  await app.listen(0, "127.0.0.1")
  return app.getUrl()
}

async function serving(handler) {
  const { url, close } = await serve(handler)
  closers.push(close)
  return url
}

/** The one session of `store`. */
async function only(store) {
  const ids = await store.ids()
  assert.equal(ids.length, 1, JSON.stringify(ids))
  return ids[0]
}

for (const [name, start] of Object.entries(HOSTS)) {
  describe(name, () => {
    async function app(options) {
      const store = new RedisStore({ url: server.url, prefix: ownPrefix(), tagSessions: true, ...options })
      closers.push(() => store.close())
      const gate = new Gate()
      const url = await start(store, gate)
      return { store, gate, open: () => browser(url) }
    }

    test(`${ROUNDS} rounds of a slow request and a logout: no session comes back`, async () => {
      const own = await app()
      let revived = 0
      for (let round = 0; round < ROUNDS; round++) {
        const user = own.open()
        await user.go("/sign-in")
        const id = await only(own.store)
        const slow = user.go("/add/more")
        await until("the request", () => own.gate.waiting === 1)
        await user.go("/sign-out")
        await own.gate.release(1)
        assert.equal((await slow).status, 200)
        if ((await own.store.get(id)) !== null) revived++
        await own.store.destroy(id)
      }
      assert.equal(revived, 0)
    })

    for (const [how, remove, survives] of [
      ["destroyed by another process", ({ id, store }) => inOtherProcess(store.prefix, "destroy", id), false],
      ["cleared by another process", ({ store }) => inOtherProcess(store.prefix, "clear"), false],
      ["expired", ({ key }) => server.client.pExpire(key, 1).then(() => gone(key)), true],
      ["evicted", ({ key }) => server.client.del(key), true],
      ["flushed", () => server.client.flushAll(), true],
    ]) {
      test(`during a request ${how}: the save is ${survives ? "written" : "dropped"}`, async () => {
        const own = await app()
        for (let round = 0; round < (how === "destroyed by another process" ? ROUNDS : 5); round++) {
          const user = own.open()
          await user.go("/sign-in")
          const id = await only(own.store)
          const slow = user.go("/add/more")
          await until("the request", () => own.gate.waiting === 1)
          await remove({ id, store: own.store, key: own.store.prefix + id })
          await own.gate.release(1)
          assert.equal((await slow).status, 200)
          const left = await own.store.get(id)
          assert.equal(JSON.stringify(left ?? null).includes('"more":true'), survives)
          if (survives) assert.equal((await user.go("/look")).user, "ada")
          await server.client.flushAll()
        }
      })
    }

    test("merge of 16 parallel writers keeps all their additions", async () => {
      const { store, gate, open } = await app({ onConflict: "merge" })
      for (let round = 0; round < 5; round++) {
        const user = open()
        await user.go("/sign-in")
        const id = await only(store)
        const adding = Array.from({ length: 16 }, (_, n) => user.go(`/add/key${n}`))
        await gate.release(16)
        for (const { status, own } of await Promise.all(adding)) assert.deepEqual([status, own], [200, "ada"])
        const text = await server.client.get(store.prefix + id)
        const kept = Array.from({ length: 16 }, (_, n) => text.includes(`"key${n}":true`))
        assert.deepEqual(kept, Array(16).fill(true))
        await store.destroy(id)
      }
    })

    test("maxLifetime ends a session in use", async () => {
      const { store, gate, open } = await app({ maxLifetime: 1 })
      const user = open()
      await user.go("/sign-in")
      const id = await only(store)
      await until("the end", async () => {
        const adding = user.go("/add/more")
        await gate.release(1)
        await adding
        return (await server.client.exists(store.prefix + id)) === 0 || (await user.go("/look")).user === null
      })
    })

    test("the store's own marks are never stored", async () => {
      const { store, open } = await app()
      await open().go("/sign-in")
      const text = await server.client.get(store.prefix + (await only(store)))
      assert.ok(!text.includes("~loaded"), text)
    })
  })
}

const gone = (key) => until("the expiry", async () => (await server.client.exists(key)) === 0)

let other

/** Calls a method of a store in another process. */
async function inOtherProcess(prefix, method, ...args) {
  if (other === undefined) {
    other = fork(new URL("support/other-store.mjs", import.meta.url), [server.url])
    closers.push(() => other.kill())
  }
  const answered = new Promise((resolve) => other.once("message", resolve))
  other.send({ prefix, method, args })
  assert.equal((await answered).error, undefined)
}
