// One of the demo's two apps, in a process of its own: an ordinary Express 5 app whose sessions are in Redis. STORE
// chooses the store, REDIS_URL the server. It sends its port to the parent, and its figures twice a second.
import { createHistogram, monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout as delay } from "node:timers/promises"

import express from "express"
import session from "express-session"

import { STORES } from "./stores.mjs"

const NS_PER_MS = 1e6
const LOAD_AT_ONCE = 64
/** How long the app works between the load of a session and its save. */
const WORK_MS = 150
const SLOW_MS = 600

const store = await STORES[process.env.STORE].open(process.env.REDIS_URL)
const app = express()

app.use(
  session({
    store,
    secret: "only for this demo",
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 3_600_000 },
  }),
)

app.get("/me", (req, res) => {
  res.json({ user: req.session.user ?? null, cart: Object.keys(req.session.cart ?? {}) })
})

app.post("/sign-in", (req, res, next) => {
  req.session.regenerate((error) => {
    if (error) return next(error)
    req.session.user = "ada"
    req.session.cart = {}
    req.session.save((failed) => (failed ? next(failed) : res.json({})))
  })
})

app.post("/cart/:item", async (req, res) => {
  await delay(WORK_MS)
  req.session.cart[req.params.item] = 1
  res.json({})
})

app.post("/sign-out", (req, res, next) => {
  req.session.destroy((error) => (error ? next(error) : res.json({})))
})

app.get("/slow", async (req, res) => {
  await delay(SLOW_MS)
  req.session.lastPage = "/slow"
  res.json({})
})

app.use((error, _req, res, _next) => res.status(503).json({ error: error.code || error.message || "error" }))

const latencies = createHistogram({ figures: 3 })
const loop = monitorEventLoopDelay({ resolution: 5 })
loop.enable()
let answered = 0
let failed = 0
let cpu = process.cpuUsage()
let since = performance.now()

/**
 * Runs the store calls of express-session for each request, LOAD_AT_ONCE at a time, until `until`. Resolves to
 * the number of answers.
 */
async function load(until) {
  const sid = `load-${process.pid}`
  const data = { cookie: { originalMaxAge: 60_000, expires: new Date(Date.now() + 60_000) }, user: "ada" }
  await store.set(sid, data)
  let count = 0
  const once = () =>
    new Promise((resolve) => {
      const startedAt = performance.now()
      const done = (error) => {
        latencies.record(Math.max(1, Math.round((performance.now() - startedAt) * NS_PER_MS)))
        if (error) failed++
        else answered++
        count += error ? 0 : 1
        resolve(error)
      }
      store.get(sid, (error, found) => (error ? done(error) : store.touch(sid, found, done)))
    })
  const user = async () => {
    while (performance.now() < until) if (await once()) await delay(100)
  }
  await Promise.all(Array.from({ length: LOAD_AT_ONCE }, user))
  return count
}

function figures() {
  const ms = performance.now() - since
  const used = process.cpuUsage(cpu)
  const told = {
    perSecond: Math.round((answered / ms) * 1000),
    p50: latencies.count > 0 ? latencies.percentile(50) / NS_PER_MS : null,
    p99: latencies.count > 0 ? latencies.percentile(99) / NS_PER_MS : null,
    loopDelay: loop.percentile(99) / NS_PER_MS,
    cpu: (used.user + used.system) / 1000 / ms,
    failed,
    status: store.status ?? null,
  }
  answered = 0
  latencies.reset()
  loop.reset()
  cpu = process.cpuUsage()
  since = performance.now()
  return told
}

process.on("message", async ({ loadMs }) => {
  const count = await load(performance.now() + loadMs)
  process.send({ loaded: Math.round((count / loadMs) * 1000) })
})
process.on("disconnect", () => process.exit())
setInterval(() => process.send({ figures: figures() }), 500)
const listener = app.listen(0, "127.0.0.1", () => process.send({ port: listener.address().port }))
