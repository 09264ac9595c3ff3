// `npm run bench:scan`: length, ids, all and clear over 100,000 sessions, by store: the time, the
// longest delay of the event loop, the longest PING of another client meanwhile, and peak memory.
import { fork } from "node:child_process"
import { once } from "node:events"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { parseArgs } from "node:util"

import * as redis from "redis"

import { describeMachine, serverInfo } from "./machine.mjs"
import { startServerProcess } from "./server-process.mjs"
import { Sessions } from "./sessions.mjs"
import { BASELINE, OURS, findStore } from "./stores.mjs"

const OPERATIONS = ["length", "ids", "all", "clear"]
const PREFIX = "scan:"
const BYTES = 300

if (process.argv[2] === "serve") serve(process.argv[3], process.argv[4])
else await main()

/** Runs the requested operations one after the other. */
function serve(name, url) {
  const opening = findStore(name).load()([url], PREFIX)
  process.on("message", async (operation) => {
    const { store, close } = await opening
    if (operation === "close") {
      await close()
      return process.disconnect()
    }
    // Connects, and loads its code.
    await new Promise((resolve) => store.get("none", resolve))
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const start = performance.now()
    const result = await new Promise((resolve, reject) => {
      store[operation]((error, value) => (error ? reject(error) : resolve(value)))
    })
    const ms = performance.now() - start
    await new Promise((resolve) => setTimeout(resolve, 5))
    delay.disable()
    process.send({
      ms,
      delayMs: delay.max / 1e6,
      rssMib: process.resourceUsage().maxRSS / 1024,
      count: Array.isArray(result) ? result.length : result,
    })
  })
  process.send("ready")
}

async function main() {
  const { values } = parseArgs({
    options: { rounds: { type: "string", default: "3" }, keys: { type: "string", default: "100000" } },
  })
  const keys = Number(values.keys)
  const server = await startServerProcess({})
  const [url] = server.urls
  const admin = await redis.createClient({ url }).connect()
  const figures = Object.fromEntries([BASELINE, OURS].map((name) => [name, {}]))
  try {
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const operation of OPERATIONS) {
        for (const name of round % 2 ? [OURS, BASELINE] : [BASELINE, OURS]) {
          await populate(admin, keys)
          ;(figures[name][operation] ??= []).push(await measure({ name, url, operation, keys }))
        }
      }
    }
    const { date, machine, node, redis: version } = describeMachine(await serverInfo(url))
    console.log(`\n${date}, ${machine}, Node ${node}, Redis ${version}`)
    console.log(`${keys} sessions of ${BYTES} B, medians of ${values.rounds} rounds\n`)
    const columns = ["", "ms", "loop delay, ms", "PING, ms", "peak MiB", "times as fast"]
    console.log(columns.map((column, at) => (at ? column.padStart(16) : column.padEnd(18))).join(""))
    for (const operation of OPERATIONS) {
      const medians = [BASELINE, OURS].map((name) => medianOf(figures[name][operation]))
      for (const [at, name] of [BASELINE, OURS].entries()) {
        const { ms, delayMs, pingMs, rssMib } = medians[at]
        const cells = [ms, delayMs, pingMs, rssMib].map((figure) => figure.toFixed(1))
        cells.push((medians[0].ms / ms).toFixed(2))
        console.log(`${operation} ${name}`.padEnd(18) + cells.map((cell) => cell.padStart(16)).join(""))
      }
    }
  } finally {
    admin.destroy()
    await server.stop()
  }
}

async function populate(admin, keys) {
  await admin.flushAll()
  const value = JSON.stringify(new Sessions(BYTES).values[0])
  for (let at = 0; at < keys; at += 1000) {
    await Promise.all(
      Array.from({ length: Math.min(1000, keys - at) }, (_, n) => admin.set(`${PREFIX}session-${at + n}`, value)),
    )
  }
}

/** One operation in a new process, with a PING of another client every millisecond. */
async function measure({ name, url, operation, keys }) {
  const child = fork(new URL(import.meta.url), ["serve", name, url])
  await once(child, "message")
  const pinging = await redis.createClient({ url }).connect()
  let running = true
  let pingMs = 0
  const pings = (async () => {
    while (running) {
      const start = performance.now()
      await pinging.ping()
      pingMs = Math.max(pingMs, performance.now() - start)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  })()
  child.send(operation)
  const [{ count, ...figures }] = await once(child, "message")
  running = false
  await pings
  pinging.destroy()
  if (operation !== "clear" && count !== keys) throw new Error(`${name}: ${operation} found ${count} of ${keys}`)
  child.send("close")
  await once(child, "exit")
  return { ...figures, pingMs }
}

function medianOf(rounds) {
  const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]
  return Object.fromEntries(Object.keys(rounds[0]).map((name) => [name, median(rounds.map((round) => round[name]))]))
}
