// `npm test`: everything, from a fresh clone. Words choose test files by their names; with --long
// faults last longer and calls are held to their longest time.
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { parseArgs } from "node:util"

import { prepare, root } from "./prepare.mjs"
import { findServer } from "./redis-server.mjs"
import { run } from "./run.mjs"

const MATRICES = {
  contract: "The contract suite over every client and topology",
  neighbours: "Real apps of every neighbour",
}

const { values, positionals: only } = parseArgs({ options: { long: { type: "boolean" } }, allowPositionals: true })
const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
const matrices = join(folder, "matrices.jsonl")
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))

try {
  await prepare()
  const server = await findServer()
  console.error(`Testing with ${server.name} ${server.version} (${server.source}).`)
  const env = {
    ...process.env,
    CONNECT_REDIS_NATIVE_SERVER: server.binary,
    REDIS_SERVER: server.binary,
    MATRICES: matrices,
    ...(values.long && { FAULTS_LONG: "1" }),
    PATH: [process.env.PATH, dirname(server.binary)].join(delimiter),
  }
  if (only.length === 0) {
    console.error("Testing the engine without Node (cargo test; building it takes a minute the first time)...")
    await run("cargo", ["test", "--quiet"], { cwd: root, env })
  }
  const files = readdirSync(join(root, "__test__")).filter((name) => name.endsWith(".test.mjs"))
  const chosen = files.filter((name) => only.length === 0 || only.some((part) => name.includes(part)))
  if (chosen.length === 0) throw new Error(`No test file is named like ${only.join(" or ")}.`)
  const reporter = process.env.CI || values.long ? "spec" : "dot"
  const options = ["--test", `--test-reporter=${reporter}`, `--test-timeout=${values.long ? 600_000 : 120_000}`]
  // One file at a time: each starts servers and freezes or kills them, and there may be two cores.
  await run(process.execPath, [...options, "--test-concurrency=1", ...chosen.map((name) => join("__test__", name))], {
    cwd: root,
    env,
  })
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  printMatrices()
}

/** What tests have noted: the contract suite by client and topology, and what the store was tried together with. */
function printMatrices() {
  if (!existsSync(matrices)) return
  const rows = readFileSync(matrices, "utf8").trim().split("\n").map(JSON.parse)
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
