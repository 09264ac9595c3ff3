// Small apps with the packages that are used beside a session store.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after } from "node:test"

import connect from "connect"
import { csrfSync } from "csrf-sync"
import express from "express"
import session from "express-session"

import connectRedisNative, { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { neighbour } from "./support/matrix.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { browser, serve } from "./support/web.mjs"

const lock = createRequire(import.meta.url)("../package-lock.json")
const server = ownServer()
const closers = []
after(async () => {
  for (const close of closers.toReversed()) await close()
})

const version = (name) => `${name} ${lock.packages[`node_modules/${name}`].version}`

function open(options) {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), ...options })
  closers.push(() => store.close())
  return store
}

/** The middleware of express-session over `store`. */
function sessions(store, options) {
  return session({ store, secret: "test", resave: false, saveUninitialized: false, ...options })
}

async function visit(handler) {
  const { url, close } = await serve(handler)
  closers.push(close)
  return browser(url)
}

const stored = async (store) => (await store.ids()).toSorted()

neighbour(version("connect"), (test) => {
  test("counts visits, signs out", async () => {
    const store = open()
    const app = connect()
    app.use(sessions(store))
    app.use("/visit", (req, res) => {
      req.session.visits = (req.session.visits ?? 0) + 1
      res.end(JSON.stringify({ visits: req.session.visits }))
    })
    app.use("/sign-out", (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.end("{}"))))
    const { go } = await visit(app)
    assert.equal((await go("/visit")).visits, 1)
    assert.equal((await go("/visit")).visits, 2)
    await go("/sign-out")
    assert.equal(await store.length(), 0)
  })

  test("an error of the store reaches connect's error handler", async () => {
    const app = connect()
    app.use(sessions(open({ url: "redis://127.0.0.1:1", commandTimeoutMs: 100 })))
    app.use((req, _res, next) => req.session.regenerate(next))
    app.use((error, _req, res, _next) => res.end(JSON.stringify({ code: error.code })))
    const { go } = await visit(app)
    assert.equal((await go("/")).code, "ERR_REDIS_STORE_CONNECT")
  })
})

neighbour(`${version("express-session")}'s options`, (test) => {
  function app(store, options) {
    const app = express()
    app.use(sessions(store, options))
    app.get("/visit", (req, res) => {
      req.session.visits = (req.session.visits ?? 0) + 1
      res.json({ visits: req.session.visits, id: req.sessionID })
    })
    app.get("/look", (req, res) => res.json({ visits: req.session.visits ?? 0 }))
    app.get("/unset", (req, res) => {
      delete req.session
      res.json({})
    })
    return visit(app)
  }

  test("genid: the key is the prefix and the id, whatever its characters", async () => {
    const store = open()
    const ids = ["user/1*[a]?", "Zoë 🦀", "a:b c"]
    const used = []
    const genid = (req) => {
      used.push(req.url)
      return ids[used.length - 1]
    }
    const browsers = await Promise.all(ids.map(() => app(store, { genid })))
    for (const [at, { go }] of browsers.entries()) {
      assert.equal((await go("/visit")).id, ids[at])
      assert.equal((await go("/visit")).visits, 2)
      assert.equal(await server.client.exists(store.prefix + ids[at]), 1)
    }
    assert.deepEqual(await stored(store), ids.toSorted())
    assert.equal(used.length, ids.length)
  })

  test("rolling: a visit without a change moves the expiry of the cookie and of the key", async () => {
    const store = open()
    const { go } = await app(store, { rolling: true, cookie: { maxAge: 600_000 } })
    const { id } = await go("/visit")
    await server.client.pExpire(store.prefix + id, 5000)
    const { set } = await go("/look")
    assert.ok(Date.parse(/Expires=([^;]*)/.exec(set)[1]) - Date.now() > 590_000)
    await until("the key's expiry", async () => (await server.client.pTTL(store.prefix + id)) > 590_000)
  })

  test("unset: 'destroy' removes the key, 'keep' leaves it", async () => {
    for (const [unset, left] of [
      ["destroy", 0],
      ["keep", 1],
    ]) {
      const store = open()
      const { go } = await app(store, { unset })
      await go("/visit")
      await go("/unset")
      assert.equal(await store.length(), left)
      assert.equal((await go("/look")).visits, left)
    }
  })
})

neighbour(`${version("csrf-sync")}, as csurf: a token in the session`, (test) => {
  test("a post passes with the session's token only", async () => {
    const { generateToken, csrfSynchronisedProtection } = csrfSync()
    const store = open()
    const app = express()
    app.use(sessions(store))
    app.get("/token", (req, res) => res.json({ token: generateToken(req) }))
    app.post("/order", csrfSynchronisedProtection, (req, res) => res.json({ ordered: true }))
    app.use((error, _req, res, _next) => res.status(error.status).json({}))
    const [ada, eve] = [await visit(app), await visit(app)]
    const { token } = await ada.go("/token")
    const other = await eve.go("/token")
    const order = (from, sent) => from.go("/order", { method: "POST", headers: sent && { "x-csrf-token": sent } })
    assert.equal((await order(ada)).status, 403)
    assert.equal((await order(ada, other.token)).status, 403)
    assert.equal((await order(ada, token)).ordered, true)
    assert.equal((await ada.go("/token")).token, token)
  })
})

neighbour("class extends RedisStore", (test) => {
  /** Wraps every session, counts reads, and ends all sessions of a user. */
  class Wrapped extends RedisStore {
    reads = 0

    constructor({ tenant, ...options }) {
      super(options)
      this.tenant = tenant
    }

    get(sid, callback) {
      this.reads++
      return super.get(sid, callback && ((error, found) => callback(error, found && found.wrapped)))
    }

    set(sid, data, callback) {
      return super.set(sid, { cookie: data.cookie, tenant: this.tenant, wrapped: data }, callback)
    }

    async endAllOf(user) {
      for (const { id, wrapped } of await this.all()) {
        if (wrapped.user === user) await this.destroy(id)
      }
    }
  }

  function app(store) {
    const app = express()
    app.use(sessions(store))
    app.get("/sign-in/:user", (req, res) => {
      req.session.user = req.params.user
      res.json({ id: req.sessionID })
    })
    app.get("/look", (req, res) => res.json({ user: req.session.user ?? null }))
    return visit(app)
  }

  test("get and set are overridden, and super is called", async () => {
    const store = new Wrapped({ url: server.url, prefix: ownPrefix(), tenant: "north" })
    closers.push(() => store.close())
    assert.ok(store instanceof RedisStore && store instanceof session.Store)
    const { go } = await app(store)
    const { id } = await go("/sign-in/ada")
    assert.equal((await go("/look")).user, "ada")
    assert.equal(store.reads, 1)
    const { tenant, wrapped } = JSON.parse(await server.client.get(store.prefix + id))
    assert.deepEqual([tenant, wrapped.user], ["north", "ada"])
  })

  test("a method of the subclass uses those of the store", async () => {
    const store = new Wrapped({ url: server.url, prefix: ownPrefix() })
    closers.push(() => store.close())
    const browsers = [await app(store), await app(store), await app(store)]
    for (const [at, user] of ["ada", "bob", "ada"].entries()) await browsers[at].go(`/sign-in/${user}`)
    await store.endAllOf("ada")
    const users = await Promise.all(browsers.map(async ({ go }) => (await go("/look")).user))
    assert.deepEqual(users, [null, "bob", null])
  })

  test("the class of connect-redis 3 to 6's factory is extended too", async () => {
    class Logged extends connectRedisNative(session) {
      log = []
      destroy(sid, callback) {
        this.log.push("destroy")
        return super.destroy(sid, callback)
      }
    }
    const store = new Logged({ url: server.url, prefix: ownPrefix() })
    closers.push(() => store.close())
    const app = express()
    app.use(sessions(store))
    app.get("/sign-in", (req, res, next) => {
      req.session.user = "ada"
      req.session.regenerate((error) => (error ? next(error) : res.json({})))
    })
    assert.equal((await (await visit(app)).go("/sign-in")).status, 200)
    assert.deepEqual(store.log, ["destroy"])
  })
})
