import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { after, describe, test } from "node:test"

import session from "express-session"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { neighbour } from "./support/matrix.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"
import { browser, serve } from "./support/web.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
const closers = []
after(() => Promise.all(closers.map((close) => close())))

/** An app with sign-in on a free port, and a client with its cookies. */
async function app(express, { store = new RedisStore({ url: server.url, prefix: ownPrefix() }), ...options } = {}) {
  const web = express()
  web.use(session({ store, secret: "test", resave: false, saveUninitialized: false, ...options }))
  web.get("/visit", (req, res) => {
    req.session.visits = (req.session.visits ?? 0) + 1
    res.json({ visits: req.session.visits, user: req.session.user ?? null })
  })
  web.get("/look", (req, res) => res.json({ visits: req.session.visits ?? 0, user: req.session.user ?? null }))
  web.get("/sign-in", (req, res, next) => {
    req.session.regenerate((error) => {
      if (error) return next(error)
      req.session.user = "ada"
      req.session.save((failed) => (failed ? next(failed) : res.json({ id: req.sessionID })))
    })
  })
  web.get("/sign-out", (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.json({}))))
  web.get("/unset", (req, res) => {
    req.session = null
    res.json({})
  })
  web.get("/reload", (req, res, next) => {
    req.session.visits = -1
    req.session.reload((error) => (error ? next(error) : res.json({ visits: req.session.visits })))
  })
  web.use((error, _req, res, _next) => res.status(503).json({ code: error.code }))
  const { url, close } = await serve(web)
  closers.push(close, () => store.close())
  return { go: browser(url).go, store }
}

for (const name of ["express", "express-4"]) {
  const express = require(name)
  neighbour(`express ${require(`${name}/package.json`).version}`, (test) => {
    test("counts visits, signs in with a new id, stays signed out", async () => {
      const { go, store } = await app(express)
      assert.equal((await go("/visit")).visits, 1)
      assert.equal((await go("/visit")).visits, 2)
      const [anonymous] = await store.ids()
      const { id } = await go("/sign-in")
      assert.notEqual(id, anonymous)
      assert.deepEqual(await store.ids(), [id])
      assert.deepEqual((({ visits, user }) => ({ visits, user }))(await go("/visit")), { visits: 1, user: "ada" })
      await go("/sign-out")
      assert.equal(await store.length(), 0)
      assert.equal((await go("/look")).user, null)
    })

    test("reads no session for an unknown or forged cookie", async () => {
      const { go } = await app(express)
      assert.deepEqual(await go("/look"), { status: 200, set: null, visits: 0, user: null })
    })

    test("session.reload reads the stored session", async () => {
      const { go } = await app(express)
      await go("/visit")
      assert.equal((await go("/reload")).visits, 1)
    })

    test("resave: false touches, resave: true saves", async () => {
      for (const resave of [false, true]) {
        const { go, store } = await app(express, { resave, cookie: { maxAge: 60_000 } })
        await go("/visit")
        const [sid] = await store.ids()
        await server.client.pExpire(store.prefix + sid, 5000)
        await server.client.configResetStat()
        await go("/look")
        await until("the expiry", async () => (await server.client.pTTL(store.prefix + sid)) > 50_000)
        const stats = await server.client.info("commandstats")
        assert.equal(/cmdstat_set:/.test(stats), resave)
        assert.equal((await go("/look")).visits, 1)
      }
    })

    test("rolling sends the cookie each time, and the session expires with it", async () => {
      const { go, store } = await app(express, { rolling: true, cookie: { maxAge: 400 } })
      await go("/visit")
      assert.match((await go("/look")).set, /^connect\.sid=/)
      await until("the expiry", async () => (await store.length()) === 0)
      assert.equal((await go("/look")).visits, 0)
    })

    test("unset: 'destroy' destroys, saveUninitialized: true saves", async () => {
      const { go, store } = await app(express, { unset: "destroy", saveUninitialized: true })
      await go("/look")
      assert.equal(await store.length(), 1)
      await go("/unset")
      assert.equal(await store.length(), 0)
    })

    test("without Redis the request fails with the error's code", async () => {
      const store = new RedisStore({ url: "redis://127.0.0.1:1", commandTimeoutMs: 100 })
      const { go } = await app(express, { store })
      assert.deepEqual((({ status, code }) => ({ status, code }))(await go("/sign-in")), {
        status: 503,
        code: "ERR_REDIS_STORE_CONNECT",
      })
    })

    test("sessions survive a restart of Redis's connection", async () => {
      const { go } = await app(express)
      await go("/visit")
      await server.client.sendCommand(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
      assert.equal((await go("/visit")).visits, 2)
    })
  })
}

describe("a client of each kind under an unchanged app", () => {
  for (const kind of CLIENTS) {
    test(kind.name, async () => {
      const client = await kind.open(server.url)
      closers.push(() => kind.close(client))
      const { go } = await app(require("express"), { store: new RedisStore({ client, prefix: ownPrefix() }) })
      assert.equal((await go("/visit")).visits, 1)
      assert.equal((await go("/visit")).visits, 2)
    })
  }
})

test("100 parallel requests of 20 users are each answered with their own session", async () => {
  const { store } = await app(require("express"))
  const users = await Promise.all(Array.from({ length: 20 }, () => app(require("express"), { store })))
  await Promise.all(users.map(({ go }) => go("/sign-in")))
  const answers = await Promise.all(users.flatMap((user) => Array.from({ length: 5 }, () => user.go("/look"))))
  assert.ok(answers.every(({ user }) => user === "ada"))
})

test("requests fail while Redis is down, and succeed when it is back", async () => {
  const first = await startServer()
  const store = new RedisStore({ url: first.url, commandTimeoutMs: 200 })
  const { go } = await app(require("express"), { store })
  await until("a first visit", async () => (await go("/visit")).status === 200)
  await first.stop()
  assert.equal((await go("/visit")).status, 503)
  const second = await startServer({ port: first.port })
  await until("service", async () => (await go("/visit")).status === 200)
  await second.stop()
})
