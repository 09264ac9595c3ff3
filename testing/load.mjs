import { createHistogram } from "node:perf_hooks"
import { setTimeout as delay } from "node:timers/promises"

import { RedisStoreError } from "../index.mjs"

const SESSIONS = 8

/**
 * Users that repeatedly save a session and read it back without waiting in between, and sometimes destroy or
 * touch it, with an account of every request. User `n` uses store `n` modulo their number.
 *
 * `lost` counts reads that contradict acknowledged writes, `crossed` reads that got another session's answer.
 */
export function startLoad(stores, users) {
  const account = {
    requests: 0,
    answers: 0,
    twice: 0,
    crossed: 0,
    lost: 0,
    longest: 0,
    codes: {},
    foreign: [],
    /** The latencies of requests that were made while the circuit was open, in microseconds. */
    refused: createHistogram(),
    /** When each user last had no error, by performance.now(). */
    servedAt: Array.from({ length: users }, () => 0),
  }
  /** The expected state of each session: the newest acknowledged `n`, and whether it may or must be missing. */
  const known = new Map()
  let running = true

  function request(store, start) {
    const startedAt = performance.now()
    const isOpen = store.status === "down"
    let calls = 0
    account.requests++
    return new Promise((resolve) => {
      start((error, value) => {
        if (++calls > 1) return void account.twice++
        account.answers++
        const took = performance.now() - startedAt
        account.longest = Math.max(account.longest, took)
        if (isOpen && error) account.refused.record(Math.ceil(took * 1000))
        if (error instanceof RedisStoreError) account.codes[error.code] = (account.codes[error.code] ?? 0) + 1
        else if (error) account.foreign.push(error)
        resolve({ error, value })
      })
    })
  }

  function check(sid, { error, value }) {
    if (error) return
    const { n, gone, unsure } = known.get(sid)
    if (value === null) account.lost += !gone && !unsure
    else if (value.sid !== sid) account.crossed++
    else account.lost += gone ? value.n <= n : value.n < n
  }

  async function user(number) {
    const store = stores[number % stores.length]
    for (let n = 0; running; n++) {
      const sid = `user${number}-${n % SESSIONS}`
      if (!known.has(sid)) known.set(sid, { n: -1, gone: true, unsure: false })
      const [set, get] = await Promise.all([
        request(store, (done) => store.set(sid, { cookie: {}, sid, n }, done)),
        request(store, (done) => store.get(sid, done)),
      ])
      if (!set.error) known.set(sid, { n, gone: false, unsure: false })
      check(sid, get)
      if (n % 5 === 4) {
        const { error } = await request(store, (done) => store.destroy(sid, done))
        const last = known.get(sid)
        known.set(sid, error ? { ...last, unsure: true } : { n, gone: true, unsure: false })
      } else if (n % 5 === 2) {
        await request(store, (done) => store.touch(sid, { cookie: {} }, done))
      }
      if (!set.error && !get.error) account.servedAt[number] = performance.now()
      // Immediate answers must not starve the event loop.
      else await delay(1)
    }
  }

  const all = Array.from({ length: users }, (_, number) => user(number))
  return {
    account,
    /** Waits for the last answers. */
    stop: async () => {
      running = false
      await Promise.all(all)
    },
    /** Reads every session once more, and counts differences from the acknowledged state. */
    verify: async () => {
      await Promise.all(
        [...known.keys()].map(async (sid) => {
          const store = stores[Number(/\d+/.exec(sid)) % stores.length]
          const get = await request(store, (done) => store.get(sid, done))
          if (get.error) account.foreign.push(get.error)
          check(sid, get)
        }),
      )
    },
  }
}
