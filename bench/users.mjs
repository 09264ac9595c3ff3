// `npm run bench:users`: the cost of the sessions of users, as a ratio to the same store without `userOf`. A
// second such store shows the noise. The stores adopt clients, as in most applications.
import { parseArgs } from "node:util"

import { createClient } from "redis"

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
  without: {},
  "without, again": {},
  userOf: { userOf: (session) => session.user.id },
  "userOf and sessionInfo": {
    userOf: (session) => session.user.id,
    sessionInfo: () => ({ ip: "203.0.113.7", agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101" }),
  },
}
const HOUR_MS = 3_600_000
const SESSIONS_PER_USER = 3

const server = await startServerProcess({})
const [url] = server.urls

/** Loaded sessions, as in requests, to touch or save again. */
async function loaded(store) {
  const sessions = new Sessions(300)
  sessions.expireIn(HOUR_MS)
  // In sequence: two parallel writes of one session would conflict, which is not measured here.
  let next = 0
  sessions.pick = () => next++ % sessions.ids.length
  await Promise.all(sessions.ids.map((id, at) => store.set(id, sessions.values[at])))
  sessions.values = await Promise.all(
    sessions.ids.map(async (id) => store.createSession({ sessionID: id, sessionStore: store }, await store.get(id))),
  )
  return sessions
}

/** Sessions that are new with every save. */
function fresh() {
  const sessions = new Sessions(300)
  sessions.expireIn(HOUR_MS)
  const ids = [...sessions.ids]
  let next = 0
  sessions.pick = () => {
    const at = next++ % ids.length
    sessions.ids[at] = `${ids[at].slice(0, 24)}${String(next).padStart(8, "0")}`
    sessions.values[at].user.id = 1_000_000 + Math.floor(next / SESSIONS_PER_USER)
    return at
  }
  return sessions
}

function medianOf(results, figure) {
  return results.map((result) => result[figure]).toSorted((a, b) => a - b)[Math.floor(results.length / 2)]
}

const WORKLOADS = [
  ["get, touch", "load-touch", loaded],
  ["first save", "set", fresh],
  ["later save", "set", loaded],
].flatMap(([title, op, make]) =>
  [1, 64].map((concurrency) => ({ title: `${title} x${concurrency}`, op, make, concurrency })),
)

const opened = []
for (const [name, options] of Object.entries(STORES)) {
  const client = await createClient({ url }).connect()
  // With prefixes of one length, as each byte of a key costs time.
  const store = new RedisStore({ client, prefix: `users${opened.length}:`, ...options })
  await store.ping()
  if (!store.native) throw new Error("The store has no native connection.")
  opened.push({ name, store, client, figures: {} })
}
for (let round = 0; round < Number(values.rounds); round++) {
  for (const { title, op, make, concurrency } of WORKLOADS) {
    for (let at = 0; at < opened.length; at++) {
      const { store, figures } = opened[(at + round) % opened.length]
      const measureMs = Number(values.seconds) * 1000
      const sessions = await make(store)
      const result = await measure(store, sessions, { op, concurrency, warmUpMs: measureMs / 5, measureMs })
      ;(figures[title] ??= []).push(result)
      await store.clear()
    }
  }
}
const [baseline] = opened
const { date, machine, node } = describeMachine(await serverInfo(url))
console.log(`\n${date}, ${machine}, Node ${node}; medians of ${values.rounds} rounds of ${values.seconds} s, 300 B\n`)
for (const [title, ratio] of [
  ["operations per second", (own, base) => medianOf(own, "opsPerSecond") / medianOf(base, "opsPerSecond")],
  ["time of an operation", (own, base) => medianOf(base, "opsPerSecond") / medianOf(own, "opsPerSecond")],
  [
    `CPU, ${mainThreadCpu.source}`,
    (own, base) => medianOf(own, "cpuMicrosecondsPerOp") / medianOf(base, "cpuMicrosecondsPerOp"),
  ],
]) {
  console.log([title.padEnd(26), ...WORKLOADS.map((workload) => workload.title.padStart(16))].join(""))
  for (const { name, figures } of opened) {
    const cells = WORKLOADS.map((workload) =>
      ratio(figures[workload.title], baseline.figures[workload.title]).toFixed(2),
    )
    console.log([name.padEnd(26), ...cells.map((cell) => cell.padStart(16))].join(""))
  }
  console.log()
}
for (const { store, client } of opened) {
  await store.close()
  client.destroy()
}
await server.stop()
