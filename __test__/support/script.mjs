import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

/**
 * Runs `code`, an ES module with RedisStore in scope, in a child process with at most `descriptors` open files.
 *
 * @returns its exit status and output
 */
export function script(code, { descriptors, ...env } = {}) {
  const program = `
    import { RedisStore } from "./index.mjs"
    ${code}`
  const words = [process.execPath, "--input-type=module", "--eval", program]
  if (descriptors !== undefined) words.unshift("sh", "-c", `ulimit -n ${descriptors}; exec "$@"`, "sh")
  const child = spawn(words[0], words.slice(1), {
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
