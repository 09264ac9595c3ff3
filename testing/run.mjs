import { spawn, spawnSync } from "node:child_process"

/** On Windows npm is a command file, which only a shell can run. */
const shell = (command) => process.platform === "win32" && /^np[mx]$/.test(command)

/** Runs a command to its end with our stdio; rejects with its name if it fails. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit", shell: shell(command), ...options })
    child.on("error", reject)
    child.on("exit", (code, signal) => {
      if (code === 0) resolve()
      else reject(new Error(`"${[command, ...args].join(" ")}" failed (${signal ?? `exit code ${code}`}).`))
    })
  })
}

/** The output of a command, or undefined if it is missing or fails. */
export function output(command, args, options = {}) {
  const { status, stdout } = spawnSync(command, args, {
    encoding: "utf8",
    shell: shell(command),
    stdio: ["ignore", "pipe", "ignore"],
    ...options,
  })
  return status === 0 ? stdout : undefined
}
