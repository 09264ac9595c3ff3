// The apps of examples/ by HTTP, which the docs pages about frameworks quote.
import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { after, afterEach, before, beforeEach } from "node:test"

import { io as socketClient } from "socket.io-client"

import { RedisStore } from "../index.mjs"
import { until } from "../testing/until.mjs"
import { layOutExample, startExample } from "./support/examples.mjs"
import { neighbour } from "./support/matrix.mjs"
import { ownServer } from "./support/servers.mjs"
import { browser } from "./support/web.mjs"

const lock = createRequire(import.meta.url)("../package-lock.json")
const version = (name) => `${name} ${lock.packages[`node_modules/${name}`].version}`
const server = ownServer()
const JSON_SIGN_IN = (name) => ["/sign-in", { method: "POST", json: { name } }]
const POST = { method: "POST" }

/** The tests of the example `name`. `define` receives `test`, whose body receives `start`. */
function example(name, title, define, { prefix } = {}) {
  neighbour(`examples/${name}: ${title}`, (test) => {
    let laidOut
    let store
    let apps = []
    const start = async (env) => {
      const app = await startExample(laidOut, { REDIS_URL: server.url, ...env })
      apps.push(app)
      return app
    }
    before(() => {
      laidOut = layOutExample(name)
      store = new RedisStore({ url: server.url, prefix })
    })
    beforeEach(() => server.client.flushAll())
    afterEach(async () => {
      for (const app of apps) await app.stop()
      apps = []
    })
    after(async () => {
      await store.close()
      laidOut.remove()
    })
    define((title, body) => test(title, () => body({ start, store, folder: laidOut.folder })))

    test("SIGTERM closes the listener and the store", async () => {
      const app = await start()
      await browser(app.url).go("/")
      assert.equal(await app.stop(), 0)
    })
  })
}

/** The tests of every example that answers JSON: counts visits, takes a new id at sign-in, and stays signed out. */
function signsInAndOut(test, { signIn, keeps, withoutRedis = signIn("ada") }) {
  test("counts visits, signs in with a new id, stays signed out", async ({ start, store }) => {
    const { url } = await start()
    const { go, cookies } = browser(url)
    assert.equal((await go("/")).visits, 1)
    assert.equal((await go("/")).visits, 2)
    const [anonymous, ...others] = await store.ids()
    assert.deepEqual(others, [])
    assert.equal((await go(...signIn("ada"))).user, "ada")
    const [id] = await store.ids()
    assert.notEqual(id, anonymous)
    assert.equal(await store.length(), 1)
    const { user, visits } = await go("/")
    assert.deepEqual({ user, visits }, { user: "ada", visits: keeps ? 3 : 1 })
    const signedIn = new Map(cookies)
    assert.equal((await go("/sign-out", POST)).status, 200)
    assert.equal(await store.get(id), null)
    for (const [name, value] of signedIn) cookies.set(name, value)
    assert.equal((await go("/")).user, null)
  })

  test("a session survives a restart of the app", async ({ start }) => {
    const first = await start({ SESSION_SECRET: "a secret of 32 characters or more" })
    const one = browser(first.url)
    await one.go("/")
    await first.stop()
    const second = await start({ SESSION_SECRET: "a secret of 32 characters or more" })
    const two = browser(second.url)
    for (const [name, value] of one.cookies) two.cookies.set(name, value)
    assert.equal((await two.go("/")).visits, 2)
  })

  test("without Redis it answers 503 with the code of the error", async ({ start }) => {
    const { url } = await start({ REDIS_URL: "redis://127.0.0.1:1" })
    const { status, code } = await browser(url).go(...withoutRedis)
    assert.deepEqual({ status, code }, { status: 503, code: "ERR_REDIS_STORE_CONNECT" })
  })
}

example("express", version("express"), (test) => {
  const form = (go, path, body = "") =>
    go(path, { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" }, body })

  /** The page of the app, with a cookie. */
  function visitor(url) {
    let cookie = ""
    return async (path, options = {}) => {
      const headers = { ...options.headers, cookie }
      const response = await fetch(url + path, { ...options, headers, redirect: "manual" })
      cookie = response.headers.getSetCookie()[0]?.split(";")[0] ?? cookie
      return { status: response.status, text: await response.text() }
    }
  }

  test("counts visits, signs in with a new id, stays signed out", async ({ start, store }) => {
    const { url } = await start()
    const go = visitor(url)
    assert.match((await go("/")).text, /<b>1<\/b> time\./)
    assert.match((await go("/")).text, /<b>2<\/b> times\./)
    const [anonymous] = await store.ids()
    assert.equal((await form(go, "/sign-in", "name=Ada+%26+co")).status, 303)
    const [id, ...others] = await store.ids()
    assert.notEqual(id, anonymous)
    assert.deepEqual(others, [])
    assert.match((await go("/")).text, /Hello, Ada &amp; co/)
    await form(go, "/sign-out")
    assert.equal(await store.length(), 0)
    assert.match((await go("/")).text, /Sign in/)
  })

  test("without Redis, the page and the health check answer 503 with the code", async ({ start }) => {
    const { url } = await start({ REDIS_URL: "redis://127.0.0.1:1" })
    const { status, redis } = await browser(url).go("/health")
    assert.deepEqual({ status, redis }, { status: 503, redis: "ERR_REDIS_STORE_CONNECT" })
    const page = await visitor(url)("/")
    assert.equal(page.status, 503)
    assert.match(page.text, /ERR_REDIS_STORE_CONNECT/)
  })

  test("a health check creates no session", async ({ start, store }) => {
    const { url } = await start()
    assert.equal((await browser(url).go("/health")).redis, "ok")
    assert.equal(await store.length(), 0)
  })
})

example("fastify", `${version("fastify")}, ${version("@fastify/session")}, without express-session`, (test) => {
  signsInAndOut(test, { signIn: JSON_SIGN_IN, keeps: true })

  test("a rolling session moves the expiry of the key with that of the cookie", async ({ start, store }) => {
    const { go } = browser((await start()).url)
    await go("/")
    const key = `sess:${(await store.ids())[0]}`
    assert.ok((await server.client.pTTL(key)) > 3_500_000)
    await server.client.pExpire(key, 5000)
    await go("/")
    await until("the expiry", async () => (await server.client.pTTL(key)) > 3_500_000)
  })

  test("express-session is not installed", ({ folder }) => {
    assert.equal(existsSync(join(folder, "node_modules", "express-session")), false)
  })
})

example(
  "koa",
  `${version("koa")}, ${version("koa-session")}`,
  (test) => {
    const signIn = (name) => [`/sign-in?name=${name}`, POST]
    signsInAndOut(test, { signIn, keeps: true })

    test("the key expires with the session", async ({ start, store }) => {
      const { url } = await start()
      await browser(url).go("/")
      const [id] = await store.ids()
      const left = await server.client.pTTL(`koa:${id}`)
      assert.ok(left > 86_000_000 && left <= 86_400_000, String(left))
    })
  },
  { prefix: "koa:" },
)

example("nestjs", `${version("@nestjs/core")}, ${version("express-session")}`, (test) => {
  signsInAndOut(test, { signIn: JSON_SIGN_IN, keeps: false })
})

example("passport", `${version("passport")}, ${version("express")}`, (test) => {
  const signIn = (username, password) => ["/sign-in", { method: "POST", json: { username, password } }]

  test("a sign-in takes a new id and keeps the cart, and the old id is gone", async ({ start, store }) => {
    const { go } = browser((await start()).url)
    assert.deepEqual((await go("/cart", { method: "POST", json: { item: "tea" } })).cart, ["tea"])
    const [anonymous] = await store.ids()
    assert.equal((await go(...signIn("ada", "wrong"))).status, 401)
    assert.equal((await go(...signIn("eve", "engine"))).status, 401)
    assert.deepEqual(await store.ids(), [anonymous])
    assert.equal((await go(...signIn("ada", "engine"))).user, "ada")
    const { user, cart } = await go("/")
    assert.deepEqual({ user, cart }, { user: "ada", cart: ["tea"] })
    const [id, ...others] = await store.ids()
    assert.notEqual(id, anonymous)
    assert.deepEqual(others, [])
    assert.deepEqual((await store.get(id)).passport, { user: 1 })
  })

  test("after a sign-out the earlier cookie is signed out too", async ({ start, store }) => {
    const { go, cookies } = browser((await start()).url)
    await go(...signIn("grace", "compiler"))
    const [signedIn] = await store.ids()
    const earlier = new Map(cookies)
    assert.equal((await go("/sign-out", POST)).status, 200)
    assert.equal((await go("/")).user, null)
    assert.equal(await store.get(signedIn), null)
    for (const [name, value] of earlier) cookies.set(name, value)
    assert.deepEqual([(await go("/")).user, await store.get(signedIn)], [null, null])
  })

  test("without Redis it answers 503 with the code of the error", async ({ start }) => {
    const { go } = browser((await start({ REDIS_URL: "redis://127.0.0.1:1" })).url)
    const { status, code } = await go(...signIn("ada", "engine"))
    assert.deepEqual({ status, code }, { status: 503, code: "ERR_REDIS_STORE_CONNECT" })
  })
})

example("socket.io", `${version("socket.io")}, ${version("express")}`, (test) => {
  /** A socket with the cookie of the browser, and the outcome of its handshake. */
  async function connect({ url, cookie }, transport) {
    const socket = socketClient(url, {
      transports: [transport],
      extraHeaders: cookie === "" ? {} : { cookie },
      reconnection: false,
    })
    const outcome = await new Promise((resolve) => {
      socket.once("connect", () => resolve("connected"))
      socket.once("connect_error", (error) => resolve(error.message))
    })
    return { socket, outcome }
  }

  for (const transport of ["websocket", "polling"]) {
    test(`by ${transport}: requires the sign-in, saves, and disconnects with the session`, async ({ start }) => {
      const one = browser((await start()).url)
      const refused = await connect(one, transport)
      assert.equal(refused.outcome, "sign in first")
      refused.socket.close()
      await one.go(...JSON_SIGN_IN("ada"))
      const { socket, outcome } = await connect(one, transport)
      try {
        assert.equal(outcome, "connected")
        const heard = new Promise((resolve) => socket.once("message", resolve))
        assert.deepEqual(await socket.emitWithAck("message", "hello"), {})
        assert.deepEqual(await heard, { user: "ada", text: "hello" })
        const { user, messages } = await one.go("/me")
        assert.deepEqual({ user, messages }, { user: "ada", messages: 1 })
        const ended = new Promise((resolve) => socket.once("disconnect", resolve))
        await one.go("/sign-out", POST)
        assert.equal(await ended, "io server disconnect")
      } finally {
        socket.close()
      }
    })
  }

  test("the page signs in, and its client script comes from the server", async ({ start }) => {
    const { url } = await start()
    const page = await (await fetch(url)).text()
    assert.match(page, /<form id="sign-in">/)
    const [, script] = /src="(.*?)"/.exec(page)
    assert.equal((await fetch(url + script)).status, 200)
  })
})
