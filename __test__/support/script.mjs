import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

/**
 * Runs `code`, an ES module that knows RedisStore, in a process of its own.
 *
 * @returns how it ended and what it printed
 */
export function script(code, env = {}) {
  const program = `
    import { RedisStore } from "./index.mjs"
    ${code}`
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
    killSignal: "SIGKILL",
  })
  let printed = ""
  child.stdout.on("data", (data) => (printed += data))
  let errors = ""
  child.stderr.on("data", (data) => (errors += data))
  return new Promise((resolve) => {
    child.on("close", (exitCode, signal) => resolve({ exitCode, signal, printed, errors }))
  })
}
