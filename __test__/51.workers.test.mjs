import assert from "node:assert/strict"
import { test } from "node:test"
import { Worker } from "node:worker_threads"

import { RedisStore } from "../index.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const server = ownServer()
const WORKER = `
  const { parentPort, workerData } = require("node:worker_threads")
  const { RedisStore } = require(workerData.index)
  const store = new RedisStore({ url: workerData.url, prefix: workerData.prefix, commandTimeoutMs: 20_000 })
  const session = { cookie: { originalMaxAge: null }, text: "x".repeat(300) }
  let answered = 0
  const go = (sid) => store.set(sid, session, () => store.get(sid, (error) => {
    if (error) throw error
    if (++answered === 500) parentPort.postMessage("busy")
    if (workerData.endless || answered < 2000) go(sid)
  }))
  for (let n = 0; n < 64; n++) go("s" + n)
`
const start = (data) =>
  new Worker(WORKER, {
    eval: true,
    workerData: {
      url: server.url,
      prefix: ownPrefix(),
      index: new URL("../index.js", import.meta.url).pathname,
      ...data,
    },
  })
const exit = (worker) =>
  new Promise((resolve, reject) => {
    worker.once("error", reject)
    worker.once("exit", resolve)
  })

test("a worker thread has a store of its own and ends when it is idle", async () => {
  assert.equal(await exit(start({ endless: false })), 0)
})

test("workers are terminated under load, five times, and the main thread's store continues", async () => {
  const store = new RedisStore({ url: server.url, prefix: ownPrefix(), commandTimeoutMs: 20_000 })
  await store.set("sid", { cookie: {}, n: 1 })
  for (let round = 0; round < 5; round++) {
    const workers = [start({ endless: true }), start({ endless: true })]
    const exits = workers.map(exit)
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("message", resolve))))
    const pending = Array.from({ length: 64 }, () => store.get("sid"))
    await Promise.all(workers.map((worker) => worker.terminate()))
    assert.deepEqual(await Promise.all(exits), [1, 1])
    assert.ok((await Promise.all(pending)).every(({ n }) => n === 1))
  }
  await store.close()
})
