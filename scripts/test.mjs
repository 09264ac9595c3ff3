// `npm test`: installs, builds, finds a Redis and runs the quick groups of tests, from a fresh clone.
// `npm run test:all` runs the other groups. Arguments select test files of both tiers by words in their names.
// --long: the long form of tests that have one. --bounds: the same, and times are checked against docs/faults.md.
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { parseArgs } from "node:util"

import { GROUPS } from "../testing/groups.mjs"
import { root } from "../testing/project.mjs"
import { findServer } from "../testing/redis-server.mjs"
import { run } from "../testing/run.mjs"
import { prepare } from "./prepare.mjs"

const LIMIT_SECONDS = 60
const MATRICES = {
  contract: "The contract suite by client and topology",
  neighbours: "Real apps of every neighbour",
}

const { values, positionals: words } = parseArgs({
  options: { all: { type: "boolean" }, long: { type: "boolean" }, bounds: { type: "boolean" } },
  allowPositionals: true,
})
const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
const totals = { passed: 0, failed: 0, skipped: 0 }
const failures = []

try {
  const groups = chosenGroups()
  const testEnv = await timed("prepared", async () => {
    await prepare()
    const server = await findServer()
    console.log(`Testing with ${server.name} ${server.version} (${server.source}).`)
    if (groups.some(({ name }) => name === "engine")) {
      await run("cargo", ["test", "--quiet", "--no-run"], { cwd: root })
    }
    return environment(server)
  })
  await timed("tested", async () => {
    for (const group of groups) await runGroup(group, testEnv)
  })
  printMatrices()
} catch (error) {
  console.error(error.message)
  totals.failed++
}
const { passed, failed, skipped } = totals
// Once more at the end, where a log that was cut still has them.
for (const { name, why } of failures) console.log(`\nFAILED: ${name}: ${why.split("\n", 1)[0]}`)
console.log(`\n${passed} passed, ${failed} failed, ${skipped} skipped`)
if (failed > 0 || passed === 0) process.exitCode = 1

async function timed(what, body) {
  const startedAt = performance.now()
  const result = await body()
  console.log(`${what} in ${seconds(startedAt)}`)
  return result
}

function seconds(startedAt) {
  return `${((performance.now() - startedAt) / 1000).toFixed(1)} s`
}

/** The groups to run, each with its `files`. */
function chosenGroups() {
  const files = readdirSync(join(root, "__test__")).filter((name) => name.endsWith(".test.mjs"))
  const topicOf = (file) => /^\d+\.(.*)\.test\.mjs$/.exec(file)[1]
  const grouped = new Set(GROUPS.flatMap(({ topics = [] }) => topics))
  const stray = files.find((file) => !grouped.has(topicOf(file)))
  if (stray !== undefined) throw new Error(`${stray} is in no group of testing/groups.mjs.`)
  const isChosen = (file) => words.length === 0 || words.some((word) => file.includes(word))
  const tier = values.all ? "all" : "quick"
  const all = GROUPS.map((group) => {
    const own = files.filter((file) => group.topics?.includes(topicOf(file)))
    return { ...group, files: own.filter(isChosen) }
  })
  const chosen = all.filter((group) => (words.length === 0 ? group.tier === tier : group.files.length > 0))
  if (chosen.length === 0) throw new Error(`No test file has a name with ${words.join(" or ")}.`)
  return chosen
}

function environment(server) {
  const inherited = Object.entries(process.env).filter(([name]) => name !== "NODE_TEST_CONTEXT")
  return {
    ...Object.fromEntries(inherited),
    CONNECT_REDIS_NATIVE_SERVER: server.binary,
    REDIS_SERVER: server.binary,
    MATRICES: join(folder, "matrices.jsonl"),
    ...((values.all || values.long || values.bounds) && { LONG_FORM: "1" }),
    ...(values.bounds && { TIME_BOUNDS: "1" }),
    PATH: [process.env.PATH, dirname(server.binary)].join(delimiter),
  }
}

/** Prints a line about the group, and the output of its failed tests and files. */
async function runGroup({ name, covers, files, command, tier, limitSeconds = LIMIT_SECONDS }, env) {
  const startedAt = performance.now()
  const results = []
  if (command !== undefined) results.push(await runCommand(command, env))
  // One file at a time: each starts servers and freezes or kills them, possibly on two cores.
  for (const file of files) results.push(await runFile(file, { ...env, TEST_LIMIT_SECONDS: limitSeconds }))
  const tests = results.flatMap((result) => result.tests)
  const count = (outcome) => tests.filter((test) => test.outcome === outcome).length
  const own = { passed: count("passed"), failed: count("failed"), skipped: count("skipped") }
  for (const outcome of Object.keys(totals)) totals[outcome] += own[outcome]
  const verdict = own.failed > 0 ? `${own.failed} FAILED of ${tests.length}` : `${own.passed} passed`
  const skips = own.skipped > 0 ? `, ${own.skipped} skipped` : ""
  console.log(`${name.padEnd(13)}  ${seconds(startedAt).padStart(7)}  ${verdict}${skips}: ${covers}`)
  for (const test of tests.filter(({ outcome }) => outcome === "skipped")) {
    console.log(`  skipped: ${test.name} (${test.why})`)
  }
  for (const { printed, tests } of results) {
    const failed = tests.filter(({ outcome }) => outcome === "failed")
    failures.push(...failed)
    for (const { name, why } of failed) console.log(`\nFAILED: ${name}\n${why}`)
    if (failed.length > 0) console.log(`\n${printed}`)
    // Tables, which the quick tier does not print.
    else if (tier === "all" || words.length > 0) process.stdout.write(printed.replace(/^\n*/, ""))
  }
}

async function runCommand([program, ...args], env) {
  const { code, printed } = await capture(program, args, env)
  const counted = [...printed.matchAll(/^test result: \S+ (\d+) passed; (\d+) failed/gm)]
  const passed = counted.reduce((sum, [, count]) => sum + Number(count), 0)
  const tests = Array.from({ length: counted.length === 0 ? 1 : passed }, () => ({ outcome: "passed" }))
  if (code !== 0) return { printed, tests: [{ name: [program, ...args].join(" "), outcome: "failed", why: "" }] }
  return { printed: "", tests }
}

async function runFile(file, env) {
  const report = join(folder, `${file}.jsonl`)
  const options = ["--import=./testing/test-limit.mjs", "--test-reporter=./testing/reporter.mjs"]
  const args = [...options, join("__test__", file)]
  const { code, printed } = await capture(process.execPath, args, { ...env, TEST_REPORT: report })
  const lines = existsSync(report) ? readFileSync(report, "utf8").trim().split("\n").filter(Boolean) : []
  const tests = lines.map((line) => JSON.parse(line))
  if (tests.length === 0 || (code !== 0 && tests.every(({ outcome }) => outcome !== "failed"))) {
    tests.push({ name: file, outcome: "failed", why: `It ended with ${code} after ${tests.length} tests.` })
  }
  return { printed, tests }
}

function capture(program, args, env) {
  const child = spawn(program, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] })
  let printed = ""
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (printed += text))
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (code, signal) => resolve({ code: code ?? signal, printed }))
  })
}

/** Prints the tables whose rows tests have recorded. */
function printMatrices() {
  const file = join(folder, "matrices.jsonl")
  if (!existsSync(file) || !(values.all || words.length > 0)) return
  const rows = readFileSync(file, "utf8").trim().split("\n").map(JSON.parse)
  for (const [matrix, title] of Object.entries(MATRICES)) {
    const own = rows.filter((row) => row.matrix === matrix)
    if (own.length === 0) continue
    const width = (column) => Math.max(...own.map((row) => row[column]?.length ?? 0))
    const cell = (row, column) => (width(column) > 0 ? `${(row[column] ?? "").padEnd(width(column))}  ` : "")
    console.log(`\n${title}:`)
    for (const row of own) {
      console.log(`  ${cell(row, "name")}${cell(row, "way")}${row.passed} of ${row.tests} passed`)
    }
  }
}
