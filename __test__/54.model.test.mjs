// Eight requests on one session, interleaved at random, compared with a simple model. The seed is fixed, so
// every run is the same.
import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { RedisStore } from "../index.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const server = ownServer()
const RUNS = 10_000
const AT_ONCE = 50
const CLIENTS = 8
const STEPS = 24
const SEED = 20_261_124

/** A linear congruential generator: `pick(below)` is the same for the same seed. */
function random(seed) {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const cookie = () => ({ originalMaxAge: null, expires: null })

/** Runs `run(sid, pick)` for every seed, some in parallel. */
async function allRuns(run) {
  for (let first = 0; first < RUNS; first += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => run(`s${first + n}`, random(SEED + first + n))))
  }
}

async function load(store, sid) {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

const keysOf = (session) =>
  Object.keys(session)
    .filter((key) => key !== "cookie")
    .toSorted()

describe(`${RUNS} random runs of ${CLIENTS} requests on a session`, () => {
  for (const onConflict of ["merge", "overwrite"]) {
    test(`${onConflict}: the stored session equals the model's after every step`, async () => {
      const prefix = ownPrefix()
      const stores = [0, 1].map(() => new RedisStore({ url: server.url, prefix, onConflict }))
      await allRuns(async (sid, pick) => {
        /** The stored keys; undefined if the session does not exist. */
        let stored = new Set()
        /** The step of the last destroy: a session that was loaded before it is not saved. */
        let destroyed = -1
        const clients = Array.from({ length: CLIENTS }, () => ({ session: null, base: undefined, loaded: 0 }))
        await stores[0].set(sid, { cookie: cookie() })
        for (let step = 0; step < STEPS; step++) {
          const client = clients[pick(CLIENTS)]
          const store = stores[pick(stores.length)]
          const { session } = client
          const action = pick(20)
          if (session === null || action === 0) {
            client.session = await load(stores[clients.indexOf(client) % 2], sid)
            client.base = client.session === null ? undefined : new Set(stored)
            client.loaded = step
            assert.deepEqual(client.session && keysOf(client.session), stored ? [...stored].toSorted() : null)
          } else if (action < 8) {
            session[`k${step}`] = step
          } else if (action < 10) {
            const keys = keysOf(session)
            if (keys.length > 0) delete session[keys[pick(keys.length)]]
          } else if (action < 17) {
            await stores[clients.indexOf(client) % 2].set(sid, session)
            const mine = new Set(keysOf(session))
            // Expired and evicted sessions are written again.
            if (stored === undefined && destroyed < client.loaded) {
              stored = mine
              client.base = mine
              client.loaded = step
            } else if (stored !== undefined) {
              client.loaded = step
              const kept = [...stored].filter((key) => mine.has(key) || !client.base.has(key))
              const added = [...mine].filter((key) => !client.base.has(key))
              stored = onConflict === "merge" ? new Set([...kept, ...added]) : mine
              client.base = mine
            }
          } else if (action === 17) {
            await store.touch(sid, session)
          } else if (action === 18 && pick(3) === 0) {
            await store.destroy(sid)
            stored = undefined
            destroyed = step
          } else if (action === 19 && pick(3) === 0) {
            if (pick(2) === 0) await server.client.pExpire(prefix + sid, 0)
            else await server.client.del(prefix + sid)
            stored = undefined
          }
        }
        const now = await stores[0].get(sid)
        assert.deepEqual(now && keysOf(now), stored ? [...stored].toSorted() : null)
      })
      await Promise.all(stores.map((store) => store.close()))
    })
  }

  test("merge: with parallel requests every acknowledged key is stored, or the session was destroyed and stays destroyed", async () => {
    const store = new RedisStore({
      url: server.url,
      prefix: ownPrefix(),
      onConflict: "merge",
      commandTimeoutMs: 20_000,
    })
    let destroyed = 0
    await allRuns(async (sid, pick) => {
      await store.set(sid, { cookie: cookie() })
      const sessions = await Promise.all(Array.from({ length: CLIENTS }, () => load(store, sid)))
      const killer = pick(4 * CLIENTS)
      await Promise.all(
        sessions.map(async (session, n) => {
          for (let save = 0; save < 2; save++) {
            session[`k${n}-${save}`] = true
            await store.set(sid, session)
            if (pick(2) === 0) await store.touch(sid, session)
          }
          if (n === killer) await store.destroy(sid)
        }),
      )
      const now = await store.get(sid)
      if (killer < CLIENTS) {
        destroyed++
        assert.equal(now, null)
      } else {
        assert.equal(keysOf(now).length, 2 * CLIENTS)
      }
    })
    assert.ok(destroyed > RUNS / 10)
    await store.close()
  })
})
