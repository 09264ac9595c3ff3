import { existsSync, readFileSync } from "node:fs"

import { output, run } from "./run.mjs"

/** Installs a package of Debian or Ubuntu, as root; does nothing elsewhere. */
export async function aptInstall(name) {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : ""
  if (!/^ID(_LIKE)?=.*(debian|ubuntu)/m.test(release) || process.getuid?.() !== 0) return
  if (output("apt-get", ["--version"]) === undefined) return
  console.error(`Installing ${name} by apt...`)
  // Without RUNLEVEL=1 the package of a server starts a service.
  const options = { stdio: "ignore", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" } }
  try {
    await run("apt-get", ["update"], options)
    await run("apt-get", ["install", "-y", "--no-install-recommends", name], options)
  } catch (error) {
    console.error(error.message)
  }
}
