// One store in a separate process. The parent sends one request at a time, and each gets one answer.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

import { mainThreadCpu } from "./main-thread-cpu.mjs"
import { measure } from "./measure.mjs"
import { Sessions } from "./sessions.mjs"
import { findStore } from "./stores.mjs"

const require = createRequire(import.meta.url)
const SAMPLE = 100

const row = findStore(process.argv[2])
const sessionsBySize = new Map()
let opened
let closed = false

const answers = {
  async open({ urls, prefix, ca }) {
    let open
    try {
      open = row.load()
    } catch (error) {
      return { skipped: error.message.split("\n", 1)[0] }
    }
    opened = await open(urls, prefix, ca)
    return { cpuSource: mainThreadCpu.source, binary: describeBinary() }
  },

  async measure({ workload, expiryMs }) {
    const sessions = await seeded(workload.bytes)
    sessions.expireIn(expiryMs)
    const { written, ...figures } = await measure(opened.store, sessions, workload)
    const sample = written.slice(-SAMPLE)
    await readBack(sessions, sample)
    return { figures, written: sample.map((index) => sessions.ids[index]) }
  },

  async close() {
    await opened?.close()
    closed = true
    return {}
  },
}

// Undefined for a store that has none.
function describeBinary() {
  const path = Object.keys(require.cache).find((name) => name.endsWith(".node"))
  if (path === undefined) return undefined
  const file = readFileSync(path)
  // `strip` removes this ELF section.
  return { bytes: file.length, stripped: !file.includes("\0.symtab\0") }
}

async function seeded(bytes) {
  if (!sessionsBySize.has(bytes)) {
    const sessions = new Sessions(bytes)
    await Promise.all(sessions.ids.map((id, index) => call("set", id, sessions.values[index])))
    sessionsBySize.set(bytes, sessions)
  }
  return sessionsBySize.get(bytes)
}

async function readBack(sessions, indexes) {
  await Promise.all(
    indexes.map(async (index) => {
      const fault = sessions.fault(index, await call("get", sessions.ids[index]))
      if (fault) throw fault
    }),
  )
}

function call(method, ...args) {
  return new Promise((resolve, reject) => {
    opened.store[method](...args, (error, value) => (error ? reject(error) : resolve(value)))
  })
}

async function answer({ kind, ...question }) {
  let reply
  try {
    reply = await answers[kind](question)
  } catch (error) {
    reply = { error: error.stack ?? String(error) }
  }
  // After the last answer only a store can keep the process alive; then the parent reports it.
  process.send(reply, () => kind === "close" && process.disconnect())
}

process.on("message", answer)
// A killed parent cannot stop this process. After close, the event loop ends it.
process.on("disconnect", () => {
  if (!closed) process.exit(1)
})
// Ctrl-C reaches every process of the terminal; the parent handles it.
process.on("SIGINT", () => {})
