// The test files of connect-redis, unchanged from its packages, with this package in its place.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"

import { startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const root = fileURLToPath(new URL("..", import.meta.url))
const modules = join(root, "node_modules")

/** UPSTREAM_SUBJECT=original runs the files against the connect-redis they belong to. */
const original = process.env.UPSTREAM_SUBJECT === "original"

/** `names` maps the names of clients in the test file to those of our development packages. */
const RELEASES = [
  {
    release: "connect-redis-4",
    file: "test/connect-redis-test.js",
    names: { redis: "redis-2", ioredis: "ioredis-4", "redis-mock": "redis-mock-0-47" },
  },
  {
    release: "connect-redis-5",
    file: "test/connect-redis-test.js",
    names: { redis: "redis-3", ioredis: "ioredis-4", "redis-mock": "redis-mock" },
  },
  {
    release: "connect-redis-6",
    file: "test/connect-redis-test.js",
    names: { "redis-v3": "redis-3", "redis-v4": "redis-4", ioredis: "ioredis-4", "redis-mock": "redis-mock" },
  },
  { release: "connect-redis-7", file: "dist/cjs/index_test.js", names: { redis: "redis-4", ioredis: "ioredis-5" } },
  { release: "connect-redis-8", file: "index_test.ts", names: { redis: "redis-4", ioredis: "ioredis-5" } },
  { release: "connect-redis-9", file: "index_test.ts", names: { redis: "redis-5" } },
  { release: "connect-redis", file: "index_test.ts", names: { redis: "redis" } },
]

/** How a test file is run, and the minimum number of its assertions or tests that must pass. */
const RUNNERS = {
  js: { command: (file) => [file], passed: /^# pass\s+(\d+)/m, least: 20 },
  ts: {
    command: () => [join(modules, "vitest", "vitest.mjs"), "run", "--reporter", "json"],
    passed: /"numPassedTests":(\d+)/,
    least: 4,
  },
}

for (const { release, file, names } of RELEASES) {
  const { version } = require(join(modules, release, "package.json"))
  test(`connect-redis ${version}'s own tests pass`, async (t) => {
    const server = await startServer()
    const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    t.after(async () => {
      rmSync(folder, { recursive: true, force: true })
      await server.stop()
    })
    layOut(folder, { release, file, names, port: server.port })
    const { command, passed, least } = RUNNERS[file.slice(-2)]
    const { code, text } = await run(command(join(folder, file)), folder)
    assert.equal(code, 0, text)
    assert.ok(Number(passed.exec(text)?.[1]) >= least, `fewer than ${least} passed:\n${text}`)
  })
}

/** Writes the test file and its dependencies: the package, a server, the clients. */
function layOut(folder, { release, file, names, port }) {
  const home = dirname(join(folder, file))
  mkdirSync(home, { recursive: true })
  cpSync(join(modules, release, file), join(folder, file))
  const subject = JSON.stringify(original ? join(modules, release) : join(root, "index.js"))
  if (file.endsWith(".ts")) {
    const load = `import { createRequire } from "node:module"\nexport const { RedisStore } = createRequire(${subject})(${subject})\n`
    writeFileSync(join(folder, "index.mjs"), load)
    writeFileSync(join(folder, "vitest.config.mjs"), `export default { test: { include: ["${file}"] } }\n`)
  } else {
    writeFileSync(join(file.startsWith("test/") ? folder : home, "index.js"), `module.exports = require(${subject})\n`)
  }
  const server = file.startsWith("test/") ? join(home, "redis-server.js") : join(home, "testdata", "server.js")
  mkdirSync(dirname(server), { recursive: true })
  const exports = [
    ["port", port],
    ["connect", "async () => {}"],
    ["disconnect", "async () => {}"],
  ]
  const line = file.endsWith(".ts")
    ? (name, value) => `export const ${name} = ${value}`
    : (name, value) => `exports.${name} = ${value}`
  writeFileSync(server, exports.map(([name, value]) => `${line(name, value)}\n`).join(""))
  mkdirSync(join(folder, "node_modules"))
  const packages = { ...names, "blue-tape": "blue-tape", "express-session": "express-session", vitest: "vitest" }
  for (const [name, ours] of Object.entries(packages)) {
    symlinkSync(join(modules, ours), join(folder, "node_modules", name), "junction")
  }
}

function run(args, cwd) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 })
    let text = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += data))
    child.on("error", reject)
    child.on("close", (code) => resolve({ code, text }))
  })
}
