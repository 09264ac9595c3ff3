// `cargo deny` over the crates of the binary: licences, bans and sources; also known vulnerabilities, if their
// database is reachable or with --advisories.
import { existsSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { root } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"

const VERSION = "0.20.2"
const DATABASE = "https://github.com/RustSec/advisory-db"

const { values } = parseArgs({ options: { advisories: { type: "boolean" } } })

try {
  const deny = await cargoDeny()
  const log = ["--log-level", "error"]
  await run(deny, [...log, "check", "bans", "licenses", "sources"], { cwd: root })
  if (values.advisories || output("git", ["ls-remote", "--exit-code", DATABASE, "HEAD"]) !== undefined) {
    await run(deny, [...log, "check", "advisories"], { cwd: root })
  } else {
    console.error(`cargo deny check advisories: skipped, ${DATABASE} cannot be reached`)
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

/** cargo-deny of VERSION: on PATH, or installed once under node_modules. */
async function cargoDeny() {
  if (output("cargo-deny", ["--version"])?.trim() === `cargo-deny ${VERSION}`) return "cargo-deny"
  const home = join(root, "node_modules", ".cache", `cargo-deny-${VERSION}`)
  const binary = join(home, "bin", process.platform === "win32" ? "cargo-deny.exe" : "cargo-deny")
  if (existsSync(binary)) return binary
  console.error("Installing cargo-deny by cargo (two minutes, once)...")
  // Without optimizations it compiles in a third of the time, and is fast enough for a hundred crates.
  const env = { ...process.env, CARGO_PROFILE_DEV_DEBUG: "0" }
  const options = ["--debug", "--locked", "--no-default-features", "--quiet", "--root", home]
  await run("cargo", ["install", "cargo-deny", "--version", VERSION, ...options], { env })
  return binary
}
