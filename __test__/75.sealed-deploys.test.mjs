// Options that seal are rolled out, and back, process by process and under load. With LONG_FORM a migration is of ten
// times as many sessions.
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { describe, test } from "node:test"

import { RedisStore } from "../index.mjs"
import { handleOf } from "./support/sealed.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const LONG = Boolean(process.env.LONG_FORM)
const SESSIONS = LONG ? 10_000 : 1000
const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })

/** A process with a store of these options. `ask(job, args)` gives it a job. */
async function start(options) {
  const child = fork(join(import.meta.dirname, "support/sealed-worker.mjs"), {
    env: { ...process.env, OPTIONS: JSON.stringify({ url: server.url, ...options }) },
  })
  const waiting = new Map()
  let last = 0
  child.on("message", ({ id, result, error }) => {
    const { resolve, reject } = waiting.get(id) ?? {}
    if (error === undefined) resolve?.(result)
    else reject?.(new Error(error))
  })
  await once(child, "message")
  const ask = (job, args) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject })
      child.send({ id: last, job, ...args })
    })
  return {
    ask,
    end: async () => {
      const exited = once(child, "exit")
      await ask("end")
      await exited
    },
  }
}

describe("a deployment, process by process", () => {
  const [OLD, NEW] = [
    ["old", 1],
    ["new", 2],
  ]
  const ROTATION = [
    { keys: [OLD], plaintext: "reject" },
    { keys: [OLD, NEW], plaintext: "reject" },
    { keys: [NEW, OLD], plaintext: "reject" },
  ]
  const FIRST_KEY = [{}, { keys: [OLD], plaintext: "write" }, { keys: [OLD], plaintext: "accept" }]
  const HASHED = [{}, { hashIds: "prepare" }, { hashIds: "migrate" }]
  for (const [name, steps, last] of [
    ["a new key", ROTATION, { keys: [NEW], plaintext: "reject" }],
    ["a new key, back", ROTATION.toReversed(), { keys: [OLD], plaintext: "reject" }],
    ["encryption", FIRST_KEY, { keys: [OLD], plaintext: "reject" }],
    ["encryption, back", FIRST_KEY.toReversed().slice(0, 2), {}],
    ["hashed ids", HASHED, { hashIds: true }],
    ["hashed ids, a step back", [{ hashIds: "migrate" }, { hashIds: "prepare" }], { hashIds: "prepare" }],
  ]) {
    test(`${name}: no session is missing, and no change of it`, async () => {
      const prefix = ownPrefix()
      const ids = Array.from({ length: 10 }, (_, n) => `s${n}`)
      const firstKeys = steps[0].keys?.map(([id, byte]) => ({ id, key: Buffer.alloc(32, byte) }))
      const encryption = firstKeys && { keys: firstKeys, plaintext: steps[0].plaintext }
      const maker = new RedisStore({ url: server.url, prefix, ...(encryption && { encryption }) })
      for (const sid of ids) await maker.set(sid, { cookie: cookie() })
      await maker.close()
      const visits = Object.fromEntries(ids.map((sid) => [sid, 0]))
      const visit = async (running, as) => {
        const done = await Promise.all(
          running.map((each, at) => each.ask("visit", { ids, count: 60, as: `${as}${at}` })),
        )
        for (const { visits: some, missing } of done) {
          assert.equal(missing, 0)
          for (const [sid, count] of Object.entries(some)) visits[sid] += count
        }
      }
      let running = await Promise.all([start({ prefix, ...steps[0] }), start({ prefix, ...steps[0] })])
      await visit(running, "first")
      for (const [at, step] of [...steps.slice(1), last].entries()) {
        // Before the last step, which reads nothing else any more.
        if (step === last) await Promise.all([running[0].ask("reseal"), visit(running, "during")])
        const next = await start({ prefix, ...step })
        await visit([running[0], next], `mixed${at}`)
        const other = await start({ prefix, ...step })
        await Promise.all(running.map((each) => each.end()))
        running = [next, other]
        await visit(running, `after${at}`)
      }
      await Promise.all(running.map((each) => each.end()))
      const lastKeys = last.keys?.map(([id, byte]) => ({ id, key: Buffer.alloc(32, byte) }))
      const { hashIds, plaintext } = last
      const reader = new RedisStore({
        url: server.url,
        prefix,
        ...(hashIds && { hashIds }),
        ...(lastKeys && { encryption: { keys: lastKeys, plaintext } }),
      })
      for (const sid of ids) {
        const { cookie: _cookie, ...found } = await reader.get(sid)
        assert.equal(Object.keys(found).length, visits[sid], sid)
      }
      await reader.close()
    })
  }
})

test(`${SESSIONS} sessions under their ids are moved and encrypted under load: none is lost, none comes back`, async () => {
  const prefix = ownPrefix()
  const ids = Array.from({ length: SESSIONS }, (_, n) => `id-${n}`)
  for (let at = 0; at < ids.length; at += 1000) {
    const some = ids.slice(at, at + 1000)
    const set = (sid) => server.client.set(prefix + sid, JSON.stringify({ cookie: cookie(), sid }), { PX: HOUR })
    await Promise.all(some.map(set))
  }
  const ended = ids.filter((_, at) => at % 7 === 0)
  const options = { prefix, hashIds: "migrate", keys: [["a", 1]], plaintext: "accept" }
  const [a, b, c] = await Promise.all([start(options), start(options), start(options)])
  const [first, second, progress] = await Promise.all([
    a.ask("use", { ids, ended, as: "a" }),
    b.ask("use", { ids: ids.toReversed(), ended, as: "b" }),
    c.ask("reseal"),
  ])
  assert.deepEqual([first.missing, second.missing, progress.failed], [[], [], 0])
  await Promise.all([a.end(), b.end(), c.end()])
  const store = new RedisStore({
    url: server.url,
    prefix,
    hashIds: true,
    encryption: { keys: [{ id: "a", key: Buffer.alloc(32, 1) }], plaintext: "reject" },
  })
  const gone = new Set(ended)
  for (const [at, sid] of ids.entries()) {
    const found = await store.get(sid)
    if (gone.has(sid)) {
      assert.equal(found, null, sid)
      continue
    }
    assert.equal(found.sid, sid)
    if (at % 3 === 0) assert.equal(found.a, at, sid)
    if ((ids.length - 1 - at) % 3 === 0) assert.equal(found.b, ids.length - 1 - at, sid)
  }
  assert.equal(await store.length(), SESSIONS - ended.length)
  const handles = new Set(ids.map(handleOf))
  assert.ok((await store.ids()).every((handle) => handles.has(handle)))
  const left = await server.client.pTTL(prefix + handleOf("id-1"))
  assert.ok(left > HOUR / 2 && left <= HOUR, `${left}`)
  await store.close()
})
