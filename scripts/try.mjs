// `npm run try`: in an empty folder npm installs the two tarballs, the quick start runs, and a session
// survives a restart of the app. With --tarballs FOLDER it uses the tarballs in that folder.
import { spawn } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { parseArgs } from "node:util"

import { pack } from "./pack.mjs"
import { root, version } from "../testing/project.mjs"
import { prepare } from "./prepare.mjs"
import { freePort, useRedis } from "../testing/redis-server.mjs"
import { run } from "../testing/run.mjs"

const { system } = createRequire(import.meta.url)("../lib/native/load.js")
const START_MS = 10_000

const { values } = parseArgs({ options: { tarballs: { type: "string" } } })
const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))

try {
  const tarballs = values.tarballs === undefined ? await packed() : found(resolve(values.tarballs))
  const project = join(folder, "app")
  mkdirSync(project)
  writeFileSync(join(project, "package.json"), '{ "private": true }\n')
  copyFileSync(join(root, "examples", "quick-start", "app.mjs"), join(project, "app.mjs"))
  console.log(`npm install ${tarballs.join(" ")} express express-session`)
  await run("npm", ["install", "--no-audit", "--no-fund", ...tarballs, "express", "express-session"], {
    cwd: project,
  })
  const redis = await useRedis()
  console.log(`Redis: ${redis.description}`)
  try {
    await showRestart(project, redis.url)
  } finally {
    await redis.stop()
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function packed() {
  await prepare()
  const { main, platforms } = await pack({ to: join(folder, "release"), quiet: true })
  return [main, platforms[system().target]]
}

function found(release) {
  const names = ["connect-redis-native", `connect-redis-native-${system().target}`]
  return names.map((name) => join(release, `${name}-${version()}.tgz`))
}

async function showRestart(project, url) {
  const PORT = await freePort()
  const browser = { cookie: undefined, at: `http://127.0.0.1:${PORT}/` }
  let expected = 0
  for (const start of ["first start", "after a restart"]) {
    const app = spawn(process.execPath, ["app.mjs"], {
      cwd: project,
      env: { ...process.env, REDIS_URL: url, PORT },
      stdio: ["ignore", "ignore", "inherit"],
    })
    const ended = new Promise((resolve) => app.once("exit", resolve))
    try {
      for (const _visit of [1, 2]) {
        expected++
        const said = await visit(browser, app)
        console.log(`${start}: ${said}`)
        if (said !== `visit ${expected}`) throw new Error(`Expected "visit ${expected}".`)
      }
    } finally {
      app.kill()
      await ended
    }
  }
}

async function visit(browser, app) {
  const deadline = Date.now() + START_MS
  for (;;) {
    try {
      const response = await fetch(browser.at, { headers: browser.cookie ? { cookie: browser.cookie } : {} })
      browser.cookie ??= response.headers.get("set-cookie").split(";")[0]
      return await response.text()
    } catch (error) {
      if (app.exitCode !== null || Date.now() > deadline) throw new Error("The app did not start.", { cause: error })
      await delay(20)
    }
  }
}
