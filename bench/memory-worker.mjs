// The processes of bench/memory.mjs. They load only what they measure, because other modules would change the
// memory before.
import { existsSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"

import session from "express-session"

import { Sessions } from "./sessions.mjs"

const require = createRequire(import.meta.url)
const MIB = 2 ** 20
const STATUS = "/proc/self/status"

const IDLE = {
  baseline: (url) => {
    const { RedisStore } = require("connect-redis")
    const redis = require("redis")
    return async () => {
      const client = await redis.createClient({ url }).connect()
      return { store: new RedisStore({ client }), close: () => client.close() }
    }
  },
  native: (url) => {
    const { RedisStore } = require("../index.js")
    return async () => {
      const store = new RedisStore({ url })
      return { store, close: () => store.close() }
    }
  },
}
function residentMib() {
  global.gc()
  return process.memoryUsage.rss() / MIB
}

/** Without the pages of files, which processes share; undefined where Linux does not report it. */
function privateMib() {
  return existsSync(STATUS) ? Number(/RssAnon:\s+(\d+)/.exec(readFileSync(STATUS, "utf8"))[1]) / 1024 : undefined
}

/** In addition to the memory of an app with express-session. */
async function idle({ name, url, stores }) {
  session({ secret: "benchmark", resave: false, saveUninitialized: false })
  const bare = residentMib()
  const barePrivate = privateMib()
  const open = IDLE[name](url)
  const opened = [await connected(open)]
  const first = residentMib()
  const firstPrivate = privateMib()
  while (opened.length < stores) opened.push(await connected(open))
  const all = residentMib()
  for (const { close } of opened) await close()
  return {
    bare,
    first: first - bare,
    firstPrivate: firstPrivate - barePrivate,
    further: (all - first) / (stores - 1),
  }
}

async function connected(open) {
  const opened = await open()
  await call(opened.store, "get", "none")
  return opened
}

/** Each request uses a session that no other request uses, in the state of its last reply. */
async function load({ url, atOnce, warmUp, requests, samples: points }) {
  const { RedisStore } = require("../index.js")
  const store = new RedisStore({ url, prefix: "memory:" })
  const sessions = new Sessions(300)
  const there = sessions.ids.map(() => false)
  const counts = { get: 0, set: 0, touch: 0, destroy: 0 }
  const ask = {
    async get(index, sid) {
      const got = await call(store, "get", sid)
      if (!there[index]) {
        if (got) throw new Error("a destroyed session was read")
        return
      }
      const fault = sessions.fault(index, got)
      if (fault) throw fault
      sessions.values[index] = store.createSession({ sessionID: sid, sessionStore: store }, got)
    },
    async set(index, sid) {
      await call(store, "set", sid, sessions.renew(index))
      there[index] = true
    },
    touch: (index, sid) => call(store, "touch", sid, sessions.values[index]),
    async destroy(index, sid) {
      await call(store, "destroy", sid)
      there[index] = false
      // A loaded session would not be written after a destroy.
      sessions.values[index] = JSON.parse(JSON.stringify(sessions.values[index]))
    },
  }
  let next = 0
  let left = 0
  async function chain() {
    while (left-- > 0) {
      const index = next++ % sessions.ids.length
      const kind = sessions.pick() % 10
      const write = there[index] ? (kind < 7 ? "set" : kind < 9 ? "touch" : "destroy") : "set"
      const op = kind < 5 ? "get" : write
      counts[op]++
      await ask[op](index, sessions.ids[index])
    }
  }
  async function drive(count) {
    left = count
    await Promise.all(Array.from({ length: atOnce }, chain))
  }

  await drive(warmUp)
  for (const op of Object.keys(counts)) counts[op] = 0
  const samples = [residentMib()]
  const start = performance.now()
  for (let at = 0; at < points; at++) {
    await drive(requests / points)
    samples.push(residentMib())
  }
  const seconds = (performance.now() - start) / 1000
  await store.close()
  return { samples, counts, seconds }
}

function call(store, method, ...args) {
  return new Promise((resolve, reject) => {
    store[method](...args, (error, value) => (error ? reject(error) : resolve(value)))
  })
}

const { kind, ...question } = JSON.parse(process.argv[2])
process.send(await { idle, load }[kind](question))
process.disconnect()
