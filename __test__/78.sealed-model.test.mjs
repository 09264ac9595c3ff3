// Processes of both steps work on sessions that are moved at the same time, interleaved at random, and one of them ends in
// the middle of anything. The seed is fixed: the same choices every time.
import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { RedisStore } from "../index.mjs"
import { handleOf } from "./support/sealed.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"
import { hold } from "./support/steps.mjs"

const server = ownServer()
const RUNS = process.env.LONG_FORM ? 5000 : 500
const AT_ONCE = 100
const STEPS = 10
const SEED = 20_261_126
const HOUR = 3_600_000
const cookie = (ms = HOUR) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })

/** A linear congruential generator: `pick(below)` is the same for the same seed. */
function random(seed) {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const turns = async (count) => {
  for (let n = 0; n < count; n++) await new Promise((resolve) => setImmediate(resolve))
}

describe(`${RUNS} sessions, each moved and used at random while a process ends`, () => {
  for (const [name, options] of [
    ["overwrite", {}],
    ["merge", { onConflict: "merge" }],
    ["users", { userOf: () => "ada" }],
  ]) {
    test(`${name}: no save is lost, none is missing, none comes back, and none is left under its id`, async () => {
      const prefix = ownPrefix()
      const pick = random(SEED)
      const open = (hashIds, more) => new RedisStore({ url: server.url, prefix, hashIds, ...options, ...more })
      const living = [open("prepare"), open("prepare"), open("migrate"), open("migrate")]
      for (const store of living) hold(store, () => turns(pick(4)))
      /** Of the process that ends: how many commands of a session it still sends. */
      const left = new Map()
      const mortal = [open("migrate", { commandTimeoutMs: 300 }), open("prepare", { commandTimeoutMs: 300 })]
      for (const store of mortal) {
        hold(store, async (_command, key) => {
          await turns(pick(4))
          const at = [...left.keys()].find((place) => key === prefix + place)
          const { run } = left.get(at) ?? {}
          if (run !== undefined && run.commands-- <= 0) await new Promise(() => {})
        })
      }
      const ended = new Set()
      const saved = new Map()
      const touched = new Set()

      async function run(sid) {
        const own = { commands: pick(8) }
        left.set(sid, { run: own }).set(handleOf(sid), { run: own })
        let n = 0
        await server.client.set(prefix + sid, JSON.stringify({ cookie: cookie(), n }), { PX: HOUR })
        const background = []
        /** As loaded by each process. */
        const loaded = new Map()
        for (let step = 0; step < STEPS; step++) {
          const store = living[pick(living.length)]
          for (const each of living) if (pick(4) === 0) background.push(each.get(sid))
          if (step > 1 && pick(3) === 0) mortal[pick(2)].get(sid).catch(() => {})
          const action = pick(12)
          if (ended.has(sid)) {
            // Only those who had it before.
            if (loaded.has(store)) await store.set(sid, loaded.get(store))
          } else if (action < 7) {
            const data = await store.get(sid)
            assert.equal(data?.n, n, "what was saved last is read")
            const session = store.createSession({ sessionID: sid, sessionStore: store }, data)
            session.n = ++n
            await store.set(sid, session)
            touched.delete(sid)
            loaded.set(store, session)
          } else if (action < 9) {
            await store.touch(sid, { cookie: cookie(3 * HOUR) })
            touched.add(sid)
          } else if (action === 9) {
            await store.set(sid, { cookie: cookie(), n: ++n })
            touched.delete(sid)
          } else if (action === 10 && pick(3) === 0) {
            await store.destroy(sid)
            ended.add(sid)
          } else await turns(pick(20))
          const found = await Promise.all(living.map((each) => each.get(sid)))
          const wanted = ended.has(sid) ? undefined : n
          assert.deepEqual(
            found.map((session) => session?.n),
            living.map(() => wanted),
            `${sid}, step ${step}`,
          )
        }
        await Promise.all(background)
        saved.set(sid, n)
      }

      for (let first = 0; first < RUNS; first += AT_ONCE) {
        left.clear()
        await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => run(`s${first + at}`)))
      }
      const { failed } = await living[2].reseal()
      assert.equal(failed, 0)
      const last = open(true)
      for (const [sid, n] of saved) {
        assert.equal((await last.get(sid))?.n, ended.has(sid) ? undefined : n, sid)
        assert.equal(await server.client.exists(prefix + sid), 0, sid)
        const lives = await server.client.pTTL(prefix + handleOf(sid))
        if (touched.has(sid) && !ended.has(sid)) assert.ok(lives > 2 * HOUR, `${sid} lives ${lives} ms`)
      }
      assert.equal(await last.length(), RUNS - ended.size)
      assert.ok(ended.size > RUNS / 50)
      await Promise.all([...living, last].map((store) => store.close()))
    })
  }
})
