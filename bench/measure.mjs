import { createHistogram } from "node:perf_hooks"

import { mainThreadCpu } from "./main-thread-cpu.mjs"

/** Latencies in nanoseconds. */
const histogram = createHistogram({ figures: 3 })
/** A record costs 0.1 us, too much for the fastest store. A prime, because batches have sizes of powers of two. */
const RECORD_EVERY = 7
const NS_PER_MS = 1e6

// Each returns a function that starts one operation and calls `done(error)` after its callback. The closures
// are created once for each chain, so that the loop itself does not allocate.
const OPS = {
  get(store, sessions, done) {
    let index
    const got = (error, value) => done(error ?? sessions.fault(index, value))
    return () => {
      index = sessions.pick()
      store.get(sessions.ids[index], got)
    }
  },
  set(store, sessions, done, written) {
    const stored = (error) => done(error)
    return () => {
      const index = sessions.pick()
      written.add(index)
      store.set(sessions.ids[index], sessions.renew(index), stored)
    }
  },
  touch(store, sessions, done, written) {
    const touched = (error) => done(error)
    return () => {
      const index = sessions.pick()
      written.add(index)
      store.touch(sessions.ids[index], sessions.values[index], touched)
    }
  },
  // The work of express-session for a request that changes nothing: it creates a session from the stored data.
  "load-touch"(store, sessions, done, written) {
    let index
    const touched = (error) => done(error)
    const got = (error, value) => {
      if (error) return done(error)
      written.add(index)
      const sid = sessions.ids[index]
      store.touch(sid, store.createSession({ sessionID: sid, sessionStore: store }, value), touched)
    }
    return () => {
      index = sessions.pick()
      store.get(sessions.ids[index], got)
    }
  },
  "get-touch"(store, sessions, done, written) {
    let index
    const touched = (error) => done(error)
    const got = (error, value) => {
      const wrong = error ?? sessions.fault(index, value)
      if (wrong) return done(wrong)
      written.add(index)
      store.touch(sessions.ids[index], sessions.values[index], touched)
    }
    return () => {
      index = sessions.pick()
      store.get(sessions.ids[index], got)
    }
  },
}

// `concurrency` chains, each starting its next operation after the callback of the last one: first to warm up,
// then, without a pause, to measure. Operations still in flight at the end are waited for and not counted.
export function measure(store, sessions, { op, concurrency, warmUpMs, measureMs }) {
  return new Promise((resolve, reject) => {
    const written = new Set()
    let running = concurrency
    let start
    let result
    let stopped = false
    let ops = 0
    let deadline = performance.now() + warmUpMs

    function passDeadline(now) {
      const cpu = mainThreadCpu.read()
      if (!start) {
        start = { at: now, cpu }
        deadline = now + measureMs
        histogram.reset()
        ops = 0
        return
      }
      stopped = true
      deadline = Infinity
      result = summary(ops, now - start.at, cpu - start.cpu)
    }

    function runChain() {
      let startedAt
      let pending = false
      const startNext = OPS[op](store, sessions, done, written)

      function done(error) {
        const now = performance.now()
        if (error || !pending) {
          stopped = true
          return reject(error ?? new Error(`${op} called back twice`))
        }
        pending = false
        if (!stopped && ops++ % RECORD_EVERY === 0) {
          histogram.record(Math.max(1, Math.round((now - startedAt) * NS_PER_MS)))
        }
        if (now >= deadline) passDeadline(now)
        if (!stopped) next(now)
        else if (--running === 0) resolve({ ...result, written: [...written] })
      }

      function next(now) {
        startedAt = now
        pending = true
        startNext()
      }

      next(performance.now())
    }

    for (let chain = 0; chain < concurrency; chain++) runChain()
  })
}

function summary(ops, ms, cpuMicroseconds) {
  return {
    opsPerSecond: (ops / ms) * 1000,
    p50Ms: histogram.percentile(50) / NS_PER_MS,
    p99Ms: histogram.percentile(99) / NS_PER_MS,
    cpuMicrosecondsPerOp: cpuMicroseconds / ops,
  }
}
