import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createConnection, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"

import { findRedis } from "./find-redis.mjs"

export { findValkey } from "./find-redis.mjs"

const START_MS = 10_000
const PORT_TRIES = 5
const SIGNALS = ["SIGHUP", "SIGINT", "SIGTERM"]

const running = new Set()

let found

/** The server of this machine, searched once. */
export function findServer() {
  found ??= findRedis()
  return found
}

/**
 * Starts a Redis on a free loopback port, without persistence, in a temporary folder. It ends with this
 * process, or by `stop()`. `port` may be 0 for a server that listens on no TCP port; `config` is the path of a
 * configuration file, `ready` the log message of a started server, and `server` another server binary.
 */
export async function startServer(options = {}) {
  const { args = [], port, config, ready = "eady to accept connections" } = options
  const server = options.server ?? (await findServer())
  for (let tries = 1; ; tries++) {
    const at = port ?? (await freePort())
    try {
      return await startOn({ port: at, server, args, config, ready })
    } catch (error) {
      if (port !== undefined || tries === PORT_TRIES || !/in use/i.test(error.message)) throw error
    }
  }
}

async function startOn({ port, server, args, config, ready }) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const base = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
  const child = spawn(server.binary, [...(config ? [config] : []), ...base, ...args].map(String), {
    stdio: ["ignore", "pipe", "pipe"],
  })
  let log = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => {
      log = (log + data).slice(-4000)
    })
    stream.unref?.()
  }
  child.unref()
  const end = () => {
    child.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
  endWithProcess(end)
  const ended = new Promise((resolve) => child.once("exit", resolve))
  child.once("error", (error) => {
    log += error.message
  })
  const stop = async () => {
    letGo(end)
    if (child.exitCode === null && child.signalCode === null) {
      child.ref()
      child.kill("SIGCONT")
      child.kill("SIGKILL")
      await ended
    }
    rmSync(folder, { recursive: true, force: true })
  }
  const deadline = Date.now() + START_MS
  while (!log.includes(ready)) {
    if (child.exitCode !== null || Date.now() > deadline) {
      await stop()
      throw new Error(`${server.binary} did not start on port ${port}:\n${log}`)
    }
    await delay(10)
  }
  return { url: `redis://127.0.0.1:${port}`, port, pid: child.pid, folder, server, process: child, stop }
}

function endWithProcess(end) {
  if (running.size === 0) {
    process.on("exit", endAll)
    for (const signal of SIGNALS) process.on(signal, endBySignal)
  }
  running.add(end)
}

function letGo(end) {
  running.delete(end)
  if (running.size > 0) return
  process.off("exit", endAll)
  for (const signal of SIGNALS) process.off(signal, endBySignal)
}

function endAll() {
  for (const end of running) end()
}

/** Without this, a signal ends the process without an "exit" event, and the servers keep running. */
function endBySignal(signal) {
  // A program with its own listener for the signal ends its servers itself.
  if (process.listenerCount(signal) > 1) return
  endAll()
  process.off(signal, endBySignal)
  process.kill(process.pid, signal)
}

/** A loopback port that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once("error", reject)
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })
}

/** The Redis of REDIS_URL or, without it, one that is started. */
export async function useRedis() {
  const url = process.env.REDIS_URL
  if (url) {
    const version = await askVersion(new URL(url)).catch(() => "of unknown version")
    return { url, description: `Redis ${version} (REDIS_URL)`, stop: async () => {} }
  }
  const started = await startServer()
  const { name, version, source } = started.server
  return {
    url: started.url,
    description: `${name} ${version} (${source}), started on port ${started.port}`,
    stop: started.stop,
  }
}

/** The version in the reply to INFO; over plain TCP only. */
async function askVersion({ protocol, hostname, port, username, password }) {
  if (protocol !== "redis:") throw new Error(`the version cannot be read over ${protocol}`)
  const socket = createConnection(Number(port || 6379), hostname)
  const credentials = [username, password].filter(Boolean).map(decodeURIComponent)
  const commands = [...(password ? [["AUTH", ...credentials]] : []), ["INFO", "server"], ["QUIT"]]
  socket.setTimeout(2000, () => socket.destroy(new Error("no answer")))
  for (const command of commands) {
    const parts = command.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`)
    socket.write(`*${command.length}\r\n${parts.join("")}`)
  }
  let text = ""
  for await (const data of socket) text += data
  return /redis_version:([\d.]+)/.exec(text)[1]
}
