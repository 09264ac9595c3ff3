// `npm run bench:express`: an Express 5 app under wrk, by store. Each app has a process of its own and
// answers with a field of the session; a request is a get and a touch.
import { execFile, fork } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs, promisify } from "node:util"

import express from "express"
import session from "express-session"

import { describeMachine, serverInfo } from "./machine.mjs"
import { startServerProcess } from "./server-process.mjs"
import { Sessions } from "./sessions.mjs"
import { BASELINE, findStore } from "./stores.mjs"

const require = createRequire(import.meta.url)
const SECRET = "benchmark"
const STORES = [BASELINE, "native", "cr8-ioredis", "memory", "none"]
const BYTES = 300
const HOUR_MS = 3_600_000

if (process.argv[2] === "serve") await serve(process.argv[3], process.argv[4])
else await main()

/** The app over one store; "none" has no sessions at all. */
async function serve(name, url) {
  const app = express()
  const cookies = []
  let close = async () => {}
  if (name === "none") {
    app.get("/", (_req, res) => res.send("user 1"))
  } else {
    const opened = await findStore(name).load()([url], `express:${name}:`)
    close = opened.close
    const sessions = new Sessions(BYTES)
    sessions.expireIn(HOUR_MS)
    const { sign } = require("cookie-signature")
    for (const [at, sid] of sessions.ids.entries()) {
      await new Promise((resolve, reject) => {
        opened.store.set(sid, sessions.values[at], (error) => (error ? reject(error) : resolve()))
      })
      cookies.push(`connect.sid=${encodeURIComponent(`s:${sign(sid, SECRET)}`)}`)
    }
    app.use(session({ store: opened.store, secret: SECRET, resave: false, saveUninitialized: false }))
    app.get("/", (req, res) => {
      if (req.session.user === undefined) return res.status(500).end()
      res.send(`user ${req.session.user.id}`)
    })
  }
  const listener = app.listen(0, "127.0.0.1", () => process.send({ port: listener.address().port, cookies }))
  process.on("disconnect", async () => {
    listener.closeAllConnections()
    listener.close()
    await close()
  })
}

async function main() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "3" },
      connections: { type: "string", default: "64" },
    },
  })
  const rounds = Number(values.rounds)
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const server = await startServerProcess({})
  const apps = []
  try {
    for (const name of STORES) {
      const child = fork(new URL(import.meta.url), ["serve", name, server.urls[0]])
      const [{ port, cookies }] = await once(child, "message")
      const script = join(folder, `${name}.lua`)
      writeFileSync(script, lua(cookies))
      apps.push({ name, child, port, script, figures: [] })
    }
    for (let round = 0; round <= rounds; round++) {
      for (let at = 0; at < apps.length; at++) {
        const app = apps[(at + round) % apps.length]
        const perSecond = await wrk(app, values)
        // The first round is to warm up.
        if (round > 0) app.figures.push(perSecond)
      }
    }
    const { date, machine, node, redis } = describeMachine(await serverInfo(server.urls[0]))
    console.log(`\n${date}, ${machine}, Node ${node}, Redis ${redis}, Express 5 under wrk`)
    console.log(`${values.connections} connections, ${BYTES} B, median of ${rounds} rounds of ${values.seconds} s\n`)
    const median = ({ figures }) => figures.toSorted((a, b) => a - b)[Math.floor(figures.length / 2)]
    const baseline = median(apps[0])
    for (const app of apps) {
      const title = app.name === "none" ? "Express without sessions" : findStore(app.name).title
      const ratio = (median(app) / baseline).toFixed(2)
      console.log(`  ${title.padEnd(60)}${ratio.padStart(6)}${median(app).toFixed(0).padStart(8)} requests/s`)
    }
  } finally {
    for (const { child } of apps) child.disconnect()
    await Promise.all(apps.map(({ child }) => (child.exitCode === null ? once(child, "exit") : undefined)))
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function wrk({ name, port, script }, { connections, seconds }) {
  const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "-s", script, `http://127.0.0.1:${port}/`]
  let output
  try {
    output = await promisify(execFile)("wrk", args)
  } catch (error) {
    if (error.code !== "ENOENT") throw error
    throw new Error("wrk is needed; install it, on Debian by: apt-get install wrk", { cause: error })
  }
  const { stdout } = output
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(`${name}: ${stdout}`)
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)[1])
}

/** Requests with the cookies of the sessions in turn. */
function lua(cookies) {
  if (cookies.length === 0) return ""
  return `local cookies = {${cookies.map((cookie) => JSON.stringify(cookie)).join(", ")}}
local at = 0
request = function()
  at = at % #cookies + 1
  wrk.headers["Cookie"] = cookies[at]
  return wrk.format("GET", "/")
end
`
}
