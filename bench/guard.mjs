// `npm run bench:guard`: the cost of writing a session only over the loaded text, as a ratio to the same store
// with `onDestroyed: "save"`, which writes as connect-redis does. A second such store shows the noise.
import { parseArgs } from "node:util"

import { RedisStore } from "../index.mjs"
import { describeMachine, serverInfo } from "./machine.mjs"
import { mainThreadCpu } from "./main-thread-cpu.mjs"
import { measure } from "./measure.mjs"
import { startServerProcess } from "./server-process.mjs"
import { Sessions } from "./sessions.mjs"

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "9" }, seconds: { type: "string", default: "0.5" } },
})
const STORES = {
  save: { onDestroyed: "save" },
  "save, again": { onDestroyed: "save" },
  default: {},
  merge: { onConflict: "merge" },
  "default + touchAfter 600": { touchAfter: 600 },
  "default + freshExpires": { freshExpires: true },
  "default + maxLifetime": { maxLifetime: 86_400 },
}
const HOUR_MS = 3_600_000

const server = await startServerProcess({})
const [url] = server.urls

function medianOf(results, figure) {
  return results.map((result) => result[figure]).toSorted((a, b) => a - b)[Math.floor(results.length / 2)]
}

async function open(name, options) {
  const store = new RedisStore({ url, prefix: `${name}:`, ...options })
  const sessions = new Sessions(300)
  sessions.expireIn(HOUR_MS)
  // In sequence: two parallel writes of one session would conflict, which is not measured here.
  let next = 0
  sessions.pick = () => next++ % sessions.ids.length
  // Loaded, as in requests, so that they are saved over the loaded text.
  await Promise.all(sessions.ids.map((id, at) => store.set(id, sessions.values[at])))
  sessions.values = await Promise.all(
    sessions.ids.map(async (id) => store.createSession({ sessionID: id, sessionStore: store }, await store.get(id))),
  )
  return { name, store, sessions, figures: {} }
}

const opened = []
for (const [name, options] of Object.entries(STORES)) opened.push(await open(name, options))
const WORKLOADS = ["load-touch", "set"].flatMap((op) => [1, 64].map((concurrency) => ({ op, concurrency })))
for (let round = 0; round < Number(values.rounds); round++) {
  for (const { op, concurrency } of WORKLOADS) {
    for (let at = 0; at < opened.length; at++) {
      const { store, sessions, figures } = opened[(at + round) % opened.length]
      const measureMs = Number(values.seconds) * 1000
      const result = await measure(store, sessions, { op, concurrency, warmUpMs: measureMs / 5, measureMs })
      ;(figures[`${op} x${concurrency}`] ??= []).push(result)
    }
  }
}
const [baseline] = opened
const { date, machine, node } = describeMachine(await serverInfo(url))
console.log(`\n${date}, ${machine}, Node ${node}; medians of ${values.rounds} rounds of ${values.seconds} s, 300 B\n`)
const columns = WORKLOADS.map(({ op, concurrency }) => `${op} x${concurrency}`)
for (const [title, figure] of [
  ["operations per second", "opsPerSecond"],
  [`CPU, ${mainThreadCpu.source}`, "cpuMicrosecondsPerOp"],
]) {
  console.log([title.padEnd(26), ...columns.map((name) => name.padStart(15))].join(""))
  for (const { name, figures } of opened) {
    const ratio = (column) => medianOf(figures[column], figure) / medianOf(baseline.figures[column], figure)
    console.log([name.padEnd(26), ...columns.map((column) => ratio(column).toFixed(2).padStart(15))].join(""))
  }
  console.log()
}
for (const { store } of opened) await store.close()
await server.stop()
