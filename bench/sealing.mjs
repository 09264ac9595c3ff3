// `npm run bench:sealing`: what it costs to seal sessions, as a ratio to the same store without. A second such store
// shows what of a ratio is noise. Then what one call of the cryptography costs, here and in connect-mongo.
import { parseArgs } from "node:util"

import { RedisStore } from "../index.mjs"
import { costOfCryptography } from "./cryptography.mjs"
import { describeMachine, serverInfo } from "./machine.mjs"
import { mainThreadCpu } from "./main-thread-cpu.mjs"
import { measure } from "./measure.mjs"
import { startServerProcess } from "./server-process.mjs"
import { Sessions } from "./sessions.mjs"

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "9" },
    seconds: { type: "string", default: "0.5" },
    only: { type: "string", default: "" },
  },
})
const encryption = { keys: [{ id: "a", key: Buffer.alloc(32, 1) }], plaintext: "reject" }
const STORES = {
  plain: {},
  "plain, again": {},
  encryption: { encryption },
  hashIds: { hashIds: true },
  "encryption, hashIds": { encryption, hashIds: true },
  "all, compression": { encryption, hashIds: true, compression: { minBytes: 1000 } },
}
const SIZES = [300, 2000]

const server = await startServerProcess({})
const [url] = server.urls

function medianOf(results, figure) {
  return results.map((result) => result[figure]).toSorted((a, b) => a - b)[Math.floor(results.length / 2)]
}

/** With prefixes of one length, as each byte of a key costs time. */
async function open(name, options) {
  const store = new RedisStore({ url, prefix: `sealing${opened.length}:`, ...options })
  const sizes = new Map(SIZES.map((bytes) => [bytes, new Sessions(bytes)]))
  for (const sessions of sizes.values()) {
    await Promise.all(sessions.ids.map((id, at) => store.set(id, sessions.values[at])))
  }
  return { name, store, sizes, figures: {} }
}

const opened = []
for (const [name, options] of Object.entries(STORES)) {
  if (name === "plain" || new RegExp(values.only).test(name)) opened.push(await open(name, options))
}
const WORKLOADS = SIZES.flatMap((bytes) => ["get", "set"].map((op) => ({ op, bytes, concurrency: 64 })))
const nameOf = ({ op, bytes, concurrency }) => `${op} ${bytes}B x${concurrency}`
for (let round = 0; round < Number(values.rounds); round++) {
  for (const workload of WORKLOADS) {
    for (let at = 0; at < opened.length; at++) {
      const { store, sizes, figures } = opened[(at + round) % opened.length]
      const measureMs = Number(values.seconds) * 1000
      const { op, bytes, concurrency } = workload
      const result = await measure(store, sizes.get(bytes), { op, concurrency, warmUpMs: measureMs / 5, measureMs })
      ;(figures[nameOf(workload)] ??= []).push(result)
    }
  }
}
const [baseline] = opened
const { date, machine, node } = describeMachine(await serverInfo(url))
console.log(`\n${date}, ${machine}, Node ${node}; medians of ${values.rounds} rounds of ${values.seconds} s\n`)
const columns = WORKLOADS.map(nameOf)
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
await costOfCryptography(SIZES)
