import { fork } from "node:child_process"
import { once } from "node:events"
import { setTimeout as after } from "node:timers/promises"

const GRACE_MS = 20_000
const END_MS = 3_000

// The parent's end of bench/worker.mjs.
export class WorkerProcess {
  #child
  #settle

  constructor(row) {
    this.row = row
    this.#child = fork(new URL("./worker.mjs", import.meta.url), [row.name])
    this.#child.on("message", (reply) => this.#settle?.(reply))
    this.#child.on("exit", () => this.#settle?.({ error: this.#ending() }))
  }

  // Resolves to the answer. `expectedMs` is the expected duration.
  async ask(kind, question = {}, expectedMs = 0) {
    if (this.#hasEnded()) throw new Error(`${this.row.name}: ${this.#ending()}`)
    const reply = await new Promise((resolve) => {
      const patience = expectedMs + GRACE_MS
      const timer = setTimeout(resolve, patience, { error: `no answer to "${kind}" within ${patience} ms` })
      this.#settle = (answer) => {
        clearTimeout(timer)
        resolve(answer)
      }
      this.#child.send({ kind, ...question }, (error) => error && this.#settle({ error: error.message }))
    })
    this.#settle = undefined
    if (reply.error) throw new Error(`${this.row.name}: ${reply.error}`)
    return reply
  }

  // Resolves after the process has ended, to a warning if it had to be killed.
  async close() {
    if (this.#hasEnded()) return undefined
    try {
      await this.ask("close")
    } catch (error) {
      this.kill()
      return error.message
    }
    const ended = once(this.#child, "exit").then(() => true)
    if (this.#hasEnded() || (await Promise.race([ended, after(END_MS, false, { ref: false })]))) return undefined
    this.kill()
    return `${this.row.name}: its process was still alive ${END_MS} ms after close`
  }

  kill() {
    this.#child.kill("SIGKILL")
  }

  #ending() {
    if (this.#child.killed) return "its process was stopped"
    return `its process ended (${this.#child.signalCode ?? `exit code ${this.#child.exitCode}`})`
  }

  #hasEnded() {
    return this.#child.killed || this.#child.exitCode !== null || this.#child.signalCode !== null
  }
}
