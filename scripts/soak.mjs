// `npm run soak`: mixed load for two minutes, with a fault every ten seconds. Fails on a request
// that is not settled exactly once, a lost write, a crossed reply, or memory that grows.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { parseArgs } from "node:util"

import { createClient } from "redis"

import { startLoad } from "../testing/load.mjs"
import { RESET, startProxy } from "../testing/proxy.mjs"
import { RedisStore } from "../index.mjs"
import { startServer } from "../testing/redis-server.mjs"

const { values } = parseArgs({ options: { seconds: { type: "string", default: "120" } } })
const seconds = Number(values.seconds)
const USERS = 64
const FAULT_EVERY_MS = 10_000
const FAULT_MS = 1500
/** The first part of the run, in which caches and allocators fill. */
const WARM_UP = 1 / 3
/** The limit from the warm-up to the end, by a regression line through all samples. */
const GROWTH_MAX_MIB = 16
const MIB = 2 ** 20

if (!(seconds >= 30)) throw new Error(`--seconds must be a number of at least 30, got ${values.seconds}.`)

const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
const args = ["--dir", folder, "--appendonly", "yes", "--appendfsync", "no"]
let server = await startServer({ args })
const proxy = await startProxy(server.port)
const admin = await createClient({ url: server.url, socket: { reconnectStrategy: 20 } })
  .on("error", () => {})
  .connect()
const store = new RedisStore({ url: proxy.url, prefix: "soak:", commandTimeoutMs: 500 })

const during = async (start, end) => {
  await start()
  await delay(FAULT_MS)
  await end()
}
let pieces = 0
const garble = (replies) =>
  during(
    () => {
      proxy.replies = replies
    },
    () => {
      proxy.replies = undefined
    },
  )
const FAULTS = {
  "kill -9 and restart": async () => {
    await server.stop()
    await delay(FAULT_MS)
    server = await startServer({ args, port: server.port })
  },
  "SIGSTOP and SIGCONT": () =>
    during(
      () => server.process.kill("SIGSTOP"),
      () => server.process.kill("SIGCONT"),
    ),
  reset: () => proxy.reset(),
  "black hole": () => during(proxy.hold, proxy.release),
  "CLIENT KILL": () => admin.sendCommand(["CLIENT", "KILL", "TYPE", "normal"]),
  "half-open": () => proxy.halve(),
  "truncated replies": () =>
    garble((data) => (++pieces % 50 === 0 ? [data.subarray(0, data.length / 2), RESET] : [data])),
  garbage: () => garble((data) => (++pieces % 50 === 0 ? [data, Buffer.from("garbage\r\n")] : [data])),
  OOM: () =>
    during(
      () => admin.sendCommand(["CONFIG", "SET", "maxmemory", "1"]),
      () => admin.sendCommand(["CONFIG", "SET", "maxmemory", "0"]),
    ),
}

const load = startLoad([store], USERS)
const { account } = load
const startedAt = performance.now()
const elapsed = () => performance.now() - startedAt
const samples = []
let running = true

async function ask() {
  while (running) {
    await Promise.allSettled([store.length(), store.ids(), store.all()])
    await delay(250)
  }
}

async function sample() {
  while (running) {
    global.gc()
    samples.push({ minutes: elapsed() / 60_000, mib: process.memoryUsage.rss() / MIB })
    await delay(1000)
  }
}

async function injure() {
  const names = Object.keys(FAULTS)
  for (let count = 0; ; count++) {
    const next = (count + 1) * FAULT_EVERY_MS
    if (next + FAULT_MS > seconds * 1000) return
    await delay(next - elapsed())
    const name = names[count % names.length]
    console.log(`${Math.round(elapsed() / 1000)} s: ${name}; ${account.requests} requests so far`)
    await FAULTS[name]()
  }
}

/** The slope of the line through `points`, by least squares. */
function slope(points) {
  const mean = (pick) => points.reduce((sum, point) => sum + pick(point), 0) / points.length
  const [x, y] = [mean(({ minutes }) => minutes), mean(({ mib }) => mib)]
  const covariance = mean(({ minutes, mib }) => (minutes - x) * (mib - y))
  return covariance / mean(({ minutes }) => (minutes - x) ** 2)
}

const background = [ask(), sample(), injure()]
await delay(seconds * 1000)
running = false
await Promise.all(background)
await load.stop()
await load.verify()
await store.close()
proxy.stop()
admin.destroy()
await server.stop()
rmSync(folder, { recursive: true, force: true })

const minutes = seconds / 60
const warm = samples.filter((point) => point.minutes >= minutes * WARM_UP)
const perMinute = slope(warm)
const growth = perMinute * minutes * (1 - WARM_UP)
const { requests, answers, twice, lost, crossed, longest, codes, foreign } = account
console.log(`
requests          ${requests}
settled           ${answers}, twice ${twice}
errors by code    ${JSON.stringify(codes)}
other errors      ${foreign.length}
lost writes       ${lost}
crossed replies   ${crossed}
longest call      ${Math.round(longest)} ms
resident memory   ${Math.round(warm[0].mib)} MiB after warm-up, ${Math.round(warm.at(-1).mib)} MiB at the end
its slope         ${perMinute.toFixed(2)} MiB a minute (bound: ${(GROWTH_MAX_MIB / minutes / (1 - WARM_UP)).toFixed(1)})`)

const failures = [
  [answers !== requests || twice > 0, "a request was not settled exactly once"],
  [foreign.length > 0, `an error is not a RedisStoreError: ${foreign[0]}`],
  [lost > 0, "an acknowledged write was lost"],
  [crossed > 0, "a reply was given to another request"],
  [growth > GROWTH_MAX_MIB, `memory grew by ${growth.toFixed(1)} MiB after the warm-up`],
].filter(([failed]) => failed)
for (const [, what] of failures) console.error(`FAILED: ${what}.`)
if (failures.length > 0) process.exitCode = 1
