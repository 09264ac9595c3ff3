// The globals that code in README and docs uses, and the checks after it has run.
import { once } from "node:events"

import express from "express"
import session from "express-session"
import { createClient } from "redis"

import { RedisStore } from "../../index.mjs"
import { called } from "../../testing/until.mjs"
import { browser, serve } from "./web.mjs"

const { REDIS_URL, COOKIE } = process.env

const given = {
  app: () => express(),
  client: () => createClient({ url: REDIS_URL }).on("error", () => {}),
  express: () => express,
  password: () => "password",
  RedisStore: () => RedisStore,
  newKey: () => Buffer.alloc(32, 2).toString("base64"),
  oldKey: () => Buffer.alloc(32, 1).toString("base64"),
  secret: () => "a secret of 32 characters or more",
  session: () => session,
  sessionKey: () => Buffer.alloc(32, 2).toString("base64"),
  store: () => new RedisStore({ url: REDIS_URL }),
}

/** Created at first use. Declarations in the code override them. */
for (const [name, make] of Object.entries(given)) {
  let made
  Object.defineProperty(globalThis, name, { get: () => (made ??= make()) })
}

/** Stores that the code created without a name. */
globalThis.made = []

/** Uses the objects that the code has created, and prints the outcome as the last line. */
globalThis.finish = async ({ app, store }) => {
  const outcome = { stores: 0 }
  if (app !== undefined) {
    app.get("/visit", (req, res) => {
      if (req.session) req.session.visits = (req.session.visits ?? 0) + 1
      res.json({ visits: req.session?.visits ?? null })
    })
    const { url } = await serve(app)
    const { go, cookies } = browser(url)
    if (COOKIE) cookies.set("connect.sid", COOKIE)
    outcome.visits = (await go("/visit")).visits
    outcome.again = (await go("/visit")).visits
    outcome.cookie = cookies.get("connect.sid")
  }
  for (const each of [...globalThis.made, store].filter((one) => one !== undefined)) {
    if (each.status === "closed") continue
    const sid = `given-${process.pid}`
    const data = { cookie: { originalMaxAge: null }, n: 1 }
    await done((callback) => each.set(sid, data, callback))
    const found = await done((callback) => each.get(sid, callback))
    if (found.n !== 1) throw new Error("A session did not come back as it was stored.")
    await done((callback) => each.destroy(sid, callback))
    outcome.stores++
  }
  process.stdout.write(`\n${JSON.stringify(outcome)}\n`, () => process.exit(0))
  await once(process, "exit")
}

async function done(start) {
  const [error, result] = await called(start)
  if (error) throw error
  return result
}
