// `npm run bench:memory`: resident memory that a connected, idle store adds, and its growth over two million
// requests. Each figure comes from new processes.
import { fork } from "node:child_process"
import { once } from "node:events"
import { parseArgs } from "node:util"

import { describeMachine, serverInfo } from "./machine.mjs"
import { startServerProcess } from "./server-process.mjs"
import { BASELINE, OURS } from "./stores.mjs"

const IDLE_STORES = 200
const IDLE_GOAL_MIB = 3
const AT_ONCE = 64
const WARM_UP = 400_000
const SAMPLES = 40
/** Four bytes for each request of the second half: any leak of a request's data is larger. */
const GROWTH_MAX_MIB = 4
/**
 * Samples that are averaged at either end of the second half, because one sample has the noise of a garbage
 * collection.
 */
const ENDS = 5

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, requests: { type: "string", default: "2000000" } },
})
const requests = Number(values.requests)
const server = await startServerProcess({})
const [url] = server.urls
try {
  const idle = { [BASELINE]: [], [OURS]: [] }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, figures] of Object.entries(idle)) {
      figures.push(await run({ kind: "idle", name, url, stores: IDLE_STORES }))
    }
  }
  const { date, machine, node, redis } = describeMachine(await serverInfo(url))
  console.log(`\n${date}, ${machine}, Node ${node}, Redis ${redis}\n`)
  console.log(`Resident MiB of a process with express-session, and what connected, idle stores add to it;`)
  console.log(`medians of ${values.rounds} processes (goal: an idle store adds less than ${IDLE_GOAL_MIB})\n`)
  const columns = ["without", "the first", "of it private", `each of ${IDLE_STORES - 1} more`]
  console.log(row("", columns))
  for (const [name, rounds] of Object.entries(idle)) {
    const medians = ["bare", "first", "firstPrivate", "further"].map((key) => median(rounds.map((round) => round[key])))
    console.log(row(name, [...medians.slice(0, 3).map((mib) => mib?.toFixed(2) ?? "unknown"), medians[3].toFixed(3)]))
  }

  const load = { url, atOnce: AT_ONCE, warmUp: WARM_UP, requests, samples: SAMPLES }
  const { samples, counts, seconds } = await run({ kind: "load", ...load })
  const mix = Object.entries(counts).map(([op, count]) => `${count} ${op}`)
  console.log(`\nResident MiB of ${OURS}, from ${WARM_UP} requests on, every ${requests / SAMPLES};`)
  console.log(`${requests} requests (${mix.join(", ")}), ${AT_ONCE} at once, in ${seconds.toFixed(0)} s\n`)
  for (let at = 0; at < samples.length; at += 10) {
    console.log(
      `  ${samples
        .slice(at, at + 10)
        .map((mib) => mib.toFixed(1).padStart(7))
        .join("")}`,
    )
  }
  const half = samples.slice(samples.length / 2)
  const growth = mean(half.slice(-ENDS)) - mean(half.slice(0, ENDS))
  console.log(`\nGrowth over the second half: ${growth.toFixed(2)} MiB (bound: ${GROWTH_MAX_MIB})`)
  if (!(growth < GROWTH_MAX_MIB)) {
    console.error(`FAILED: memory grew by ${growth.toFixed(2)} MiB.`)
    process.exitCode = 1
  }
} finally {
  await server.stop()
}

async function run(question) {
  const worker = new URL("./memory-worker.mjs", import.meta.url)
  const child = fork(worker, [JSON.stringify(question)], { execArgv: ["--expose-gc"] })
  const ended = once(child, "exit")
  const [answer] = await Promise.race([once(child, "message"), ended])
  await ended
  if (answer === null || typeof answer !== "object") throw new Error("a process ended before it answered")
  return answer
}

function row(name, cells) {
  return `  ${name.padEnd(10)}${cells.map((cell) => cell.padStart(18)).join("")}`
}

function mean(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length
}

function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]
}
