// scripts/smoke-target.mjs runs this in a project with the installed packages, under the target's Node. Prints
// a line for each check. REDIS_URL is the address of a Redis; without it, only the checks that need no Redis
// run. No server listens at REFUSED_URL.
import assert from "node:assert/strict"
import { fileURLToPath } from "node:url"
import { isMainThread, Worker } from "node:worker_threads"

import { RedisStore } from "connect-redis-native"
import session from "express-session"

const { REDIS_URL, REFUSED_URL } = process.env
const MANY = 2000
const LARGE = 3_000_000
const prefix = isMainThread ? `smoke-${process.pid}:` : `smoke-worker-${process.pid}:`

const open = (options) => new RedisStore({ prefix, ...options })
const keep = (text) => ({ cookie: { originalMaxAge: 60_000 }, text })
const ids = Array.from({ length: MANY }, (_, number) => `id-${number}`)

const always = {
  "the binary is loaded, and the store extends the app's express-session": async (store) => {
    assert.equal(store.native, true)
    assert.ok(store instanceof session.Store)
  },
  "a port that refuses": async () => {
    const refused = open({ url: REFUSED_URL, connectTimeoutMs: 5000, commandTimeoutMs: 10_000 })
    await assert.rejects(refused.get("one"), { name: "RedisStoreError", code: /^ERR_REDIS_STORE_/ })
    await refused.close()
  },
}

const withServer = {
  "set and get": async (store) => {
    await store.set("one", keep("Zoë 🦀"))
    assert.equal((await store.get("one")).text, "Zoë 🦀")
    assert.equal(await store.get("two"), null)
  },
  callbacks: async (store) => {
    const got = await new Promise((resolve, reject) => {
      store.get("one", (error, found) => (error ? reject(error) : resolve(found)))
    })
    assert.equal(got.text, "Zoë 🦀")
  },
  touch: async (store) => {
    await store.touch("one", keep("Zoë 🦀"))
    assert.equal((await store.get("one")).text, "Zoë 🦀")
  },
  "ids, all and length": async (store) => {
    await store.set("two", keep("2"))
    assert.deepEqual((await store.ids()).sort(), ["one", "two"])
    assert.deepEqual((await store.all()).map(({ id }) => id).sort(), ["one", "two"])
    assert.equal(await store.length(), 2)
  },
  destroy: async (store) => {
    await store.destroy("two")
    assert.equal(await store.get("two"), null)
    assert.equal(await store.length(), 1)
  },
  [`${MANY} requests in flight`]: async (store) => {
    await Promise.all(ids.map((id) => store.set(id, keep(id))))
    const found = await Promise.all(ids.map((id) => store.get(id)))
    assert.deepEqual(
      found.map(({ text }) => text),
      ids,
    )
    assert.equal(await store.length(), MANY + 1)
  },
  clear: async (store) => {
    await store.clear()
    assert.deepEqual(await store.ids(), [])
  },
  "a session of 3 MB": async (store) => {
    const text = "é".repeat(LARGE / 2)
    await store.set("large", keep(text))
    assert.equal((await store.get("large")).text, text)
    await store.destroy("large")
  },
  "TLS to a port without": async () => {
    const url = REDIS_URL.replace("redis:", "rediss:")
    const encrypted = open({ url, connectTimeoutMs: 5000, commandTimeoutMs: 10_000 })
    await assert.rejects(encrypted.get("one"), { name: "RedisStoreError", code: /^ERR_REDIS_STORE_/ })
    await encrypted.close()
  },
  "a worker thread": async () => {
    const worker = new Worker(fileURLToPath(import.meta.url))
    const code = await new Promise((resolve, reject) => worker.once("error", reject).once("exit", resolve))
    assert.equal(code, 0)
  },
}

const last = {
  close: async (store) => {
    await store.close()
    await assert.rejects(store.get("one"), { code: "ERR_REDIS_STORE_CLOSED" })
  },
}

async function inWorker() {
  const store = open({ url: REDIS_URL })
  await store.set("one", keep("1"))
  assert.equal((await store.get("one")).text, "1")
  await store.clear()
  await store.close()
}

async function inMainThread() {
  const { platform, arch, version } = process
  console.log(`Node ${version} on ${platform} ${arch}`)
  const store = open({ url: REDIS_URL ?? REFUSED_URL })
  const checks = { ...always, ...(REDIS_URL && withServer), ...last }
  for (const [name, check] of Object.entries(checks)) {
    await check(store)
    console.log(`ok: ${name}`)
  }
}

await (isMainThread ? inMainThread() : inWorker())
