// `npm run test:hosts`: runs the test suites of libraries that use a store, with connect-redis 10's store in
// place of their memory store, then with ours. Fails if a test passes with connect-redis 10 only. Each suite
// needs a checkout in which `npm install` was run; an environment variable names it.
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { root } from "../testing/project.mjs"
import { startServer } from "../testing/redis-server.mjs"
import { prepare } from "./prepare.mjs"

const LIMIT_MS = 300_000
/** Some suites compare times to the second, or race with their own timers. */
const MOST_RUNS = 4
const hook = (name) => join(root, "scripts", "host-suites", name)

const mocha = (checkout, args) => [
  join(checkout, "node_modules", "mocha", "bin", "_mocha"),
  ...["--check-leaks", "--reporter", hook("mocha-reporter.cjs"), ...args, "test/"],
]

/**
 * `replaced`: the files whose exports become the store. `baseClass`: the file with the Store to extend. `factory`:
 * the exports are a function of express-session. `ignored`: methods that the suite calls and that do nothing.
 */
const SUITES = [
  {
    name: "express-session",
    variable: "EXPRESS_SESSION_CHECKOUT",
    replaced: ["session/memory.js"],
    baseClass: "session/store.js",
    command: (checkout) =>
      mocha(checkout, existsSync(join(checkout, "test/support/env.js")) ? ["--require", "./test/support/env.js"] : []),
  },
  {
    name: "@fastify/session",
    variable: "FASTIFY_SESSION_CHECKOUT",
    replaced: ["lib/store.js", "test/TestStore.js"],
    command: (checkout) => [
      ...["--test", "--test-reporter", hook("node-reporter.mjs"), "--test-reporter-destination", "stdout"],
      ...readdirSync(join(checkout, "test"))
        .filter((name) => name.endsWith(".test.js"))
        .map((name) => join("test", name)),
    ],
  },
  {
    name: "memorystore",
    variable: "MEMORYSTORE_CHECKOUT",
    replaced: ["lib/memorystore.js"],
    factory: true,
    // The timer of its memory store, which the suite stops after every test.
    ignored: ["startInterval", "stopInterval"],
    command: (checkout) => mocha(checkout, []),
  },
]
const SUBJECTS = ["connect-redis", "connect-redis-native"]

try {
  const chosen = SUITES.filter(({ variable }) => process.env[variable])
  if (chosen.length === 0) {
    const names = SUITES.map(({ name, variable }) => `${variable} (${name})`).join(", ")
    throw new Error(`No suite to run: set one or more of ${names} to a checkout in which npm install was run.`)
  }
  await prepare()
  const server = await startServer()
  try {
    for (const suite of SUITES) {
      if (!chosen.includes(suite)) console.log(`${suite.name}: not run, ${suite.variable} is not set`)
      else if (!(await compare(suite, server.url))) process.exitCode = 1
    }
  } finally {
    await server.stop()
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

/**
 * Runs a suite with each store, prints the difference, and returns whether ours passes all tests that the other
 * passes.
 */
async function compare(suite, url) {
  const checkout = realpathSync(process.env[suite.variable])
  const [theirs, ours] = [
    await results(suite, checkout, url, SUBJECTS[0]),
    await results(suite, checkout, url, SUBJECTS[1]),
  ]
  const passed = (tests) => [...tests.values()].filter((test) => test.passed).length
  console.log(
    `${suite.name}: connect-redis passes ${passed(theirs)} of ${theirs.size}, ours ${passed(ours)} of ${ours.size}`,
  )
  const failed = [...theirs].flatMap(([name, test]) => (test.passed && !ours.get(name)?.passed ? [name] : []))
  let lost = failed
  for (let runs = 1; lost.length > 0 && runs < MOST_RUNS; runs++) {
    const again = await results(suite, checkout, url, SUBJECTS[1])
    lost = lost.filter((name) => !again.get(name)?.passed)
  }
  for (const name of failed) {
    const when = lost.includes(name) ? `alone, ${MOST_RUNS} times` : "alone, and passes when it is run again"
    console.log(`  fails with ours ${when}: ${name}\n    ${ours.get(name)?.error ?? "did not run"}`)
  }
  const gained = [...ours].filter(([name, test]) => test.passed && !theirs.get(name)?.passed)
  for (const [name] of gained) console.log(`  passes with ours alone: ${name}`)
  return lost.length === 0
}

/** The outcome of every test of a suite, by name. */
async function results({ name, command, replaced, baseClass, factory, ignored = [] }, checkout, url, subject) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const file = join(folder, "results.jsonl")
  const settings = {
    url,
    subject,
    replaced: replaced.map((path) => join(checkout, path)),
    baseClass: baseClass && join(checkout, baseClass),
    factory: factory === true,
    ignored,
  }
  const missing = settings.replaced.find((path) => !existsSync(path))
  if (missing !== undefined) throw new Error(`${name}: ${missing} does not exist; give a checkout of ${name}.`)
  const env = {
    ...process.env,
    NODE_ENV: "test",
    NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ""} --require ${JSON.stringify(hook("replace-store.cjs"))}`,
    HOST_SUITE: JSON.stringify(settings),
    HOST_SUITE_RESULTS: file,
  }
  try {
    const { printed, ended } = await run(command(checkout), { cwd: checkout, env })
    const lines = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").filter(Boolean) : []
    const tests = new Map()
    for (const { name: test, ...outcome } of lines.map((line) => JSON.parse(line))) {
      let unique = test
      for (let count = 2; tests.has(unique); count++) unique = `${test} (${count})`
      tests.set(unique, outcome)
    }
    if (![...tests.values()].some((test) => test.passed)) {
      const [first] = tests.values()
      throw new Error(
        `${name} passes no test with ${subject}; was npm install run in ${checkout}?\n${first?.error ?? printed.slice(-4000)}`,
      )
    }
    return tests.set("(the process ends)", { passed: ended, error: `it was killed after ${LIMIT_MS} ms` })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function run(args, options) {
  const child = spawn(process.execPath, args, { ...options, stdio: ["ignore", "pipe", "pipe"], timeout: LIMIT_MS })
  let printed = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (printed += data))
  return new Promise((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code, signal) => resolve({ printed, ended: signal === null }))
  })
}
