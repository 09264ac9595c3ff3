import { writeFileSync } from "node:fs"

import * as redis from "redis"

import { describeMachine, serverInfo } from "./machine.mjs"
import { readOptions, UsageError } from "./options.mjs"
import { Progress } from "./progress.mjs"
import { formatReport, summarize } from "./report.mjs"
import { startServerProcess } from "./server-process.mjs"
import { STORES, makeRedisClient, versionsOf } from "./stores.mjs"
import { WorkerProcess } from "./worker-process.mjs"
import { selectWorkloads } from "./workloads.mjs"

const WARM_UP_SHARE = 0.2
const HOUR_MS = 3_600_000
const TTL_SLACK_S = 120

async function main() {
  const options = readOptions(process.argv.slice(2))
  const workloads = selectWorkloads(options)
  const rows = STORES.filter(({ name, cluster }) => options.stores.test(name) && (cluster || !options.cluster))
  if (workloads.length === 0) throw new UsageError("--only matches no workload (try --only get)")
  if (rows.length === 0) {
    throw new UsageError(`--stores matches none of ${STORES.map(({ name }) => name).join(", ")}`)
  }

  const server = await startServerProcess(options)
  const inspector = makeRedisClient(redis, server.urls, server.ca)
  const workers = rows.map((row) => new WorkerProcess(row))
  const killWorkers = () => workers.forEach((worker) => worker.kill())
  // A request to a killed worker fails, and the run ends as after any failure.
  process.once("SIGINT", killWorkers)
  process.once("SIGTERM", killWorkers)

  try {
    await inspector.connect()
    const { measured, skipped, cpuSource, binary } = await openStores(workers, server)
    const rounds = await measureAll({ measured, workloads, options, inspector })
    const results = {
      ...describeMachine(await serverInfo(server.urls[0], server.ca)),
      cluster: options.cluster,
      tls: options.tls,
      cpuSource,
      binary,
      rounds: options.rounds,
      seconds: options.seconds,
      stores: measured
        .map(({ row }) => (options.tls ? { ...row, ...row.overTls } : row))
        .map(({ name, title, packages }) => ({ name, title, versions: versionsOf({ packages }) })),
      skipped,
      workloads: summarize(workloads, rounds),
    }
    writeFileSync(resultsOf(options), `${JSON.stringify(results, null, 2)}\n`)
    console.log(formatReport(results))
  } catch (error) {
    killWorkers()
    throw error
  } finally {
    const warnings = await Promise.all(workers.map((worker) => worker.close()))
    for (const warning of warnings) if (warning) console.error(`warning: ${warning}`)
    if (inspector.isOpen) await inspector.close()
    await server.stop()
  }
}

// The chart draws results.json: one server, without TLS.
function resultsOf({ cluster, tls }) {
  return new URL(`./results${cluster ? "-cluster" : tls ? "-tls" : ""}.json`, import.meta.url)
}

async function openStores(workers, { urls, ca }) {
  const measured = []
  const skipped = []
  let cpuSource
  let binary
  for (const worker of workers) {
    const reply = await worker.ask("open", { urls, ca, prefix: prefixOf(worker.row) })
    if (reply.skipped) {
      skipped.push({ name: worker.row.name, reason: reply.skipped })
      console.error(`skipped ${worker.row.name} (${worker.row.title}): ${reply.skipped}`)
    } else {
      measured.push(worker)
      cpuSource = reply.cpuSource
      binary ??= reply.binary
    }
  }
  if (measured.length === 0) throw new Error("No store could be loaded; run npm install.")
  return { measured, skipped, cpuSource, binary }
}

// Returns, for each workload's name and store's name, the figures of every round.
async function measureAll({ measured, workloads, options, inspector }) {
  const progress = new Progress(workloads.length * options.rounds * measured.length)
  const results = {}
  let measurements = 0
  for (const workload of workloads) {
    const ofWorkload = Object.fromEntries(measured.map(({ row }) => [row.name, []]))
    for (let round = 0; round < options.rounds; round++) {
      for (const worker of rotated(measured, round)) {
        progress.step(`${workload.name}, round ${round + 1} of ${options.rounds}, ${worker.row.name}`)
        // A different expiry each time, so that a TTL of an earlier measurement is not taken for this one.
        const expiryMs = (24 + ++measurements) * HOUR_MS
        ofWorkload[worker.row.name].push(await measureOnce(worker, { workload, options, expiryMs, inspector }))
      }
    }
    results[workload.name] = ofWorkload
    progress.done(workload.name)
  }
  return results
}

async function measureOnce(worker, { workload, options, expiryMs, inspector }) {
  const measureMs = options.seconds * 1000
  const warmUpMs = measureMs * WARM_UP_SHARE
  const question = { workload: { ...workload, warmUpMs, measureMs }, expiryMs }
  const { figures, written } = await worker.ask("measure", question, warmUpMs + measureMs)
  if (!worker.row.inProcess) await checkExpiry(inspector, worker.row, workload, written, expiryMs / 1000)
  return figures
}

// The reply to a touch does not show whether it was executed; the TTL in Redis does.
async function checkExpiry(inspector, row, workload, ids, expected) {
  const ttls = await Promise.all(ids.map((id) => inspector.ttl(prefixOf(row) + id)))
  const wrong = ttls.find((ttl) => Math.abs(ttl - expected) > TTL_SLACK_S)
  if (wrong !== undefined) {
    throw new Error(`${row.name}: after ${workload.name} a session has a TTL of ${wrong} s; it must be ${expected} s`)
  }
}

function prefixOf({ name }) {
  return `bench:${name}:`
}

// Stores take turns: no store is always first in a round, or always after the same neighbour's garbage.
function rotated(list, by) {
  const start = by % list.length
  return [...list.slice(start), ...list.slice(0, start)]
}

main().catch((error) => {
  console.error(error instanceof UsageError ? error.message : `bench failed: ${error.message}`)
  process.exitCode = 1
})
