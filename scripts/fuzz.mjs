// node scripts/fuzz.mjs TARGET [--minutes N]: one target of fuzz/ by cargo-fuzz, which needs a nightly Rust.
import { parseArgs } from "node:util"

import { root } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"

const { values, positionals } = parseArgs({
  options: { minutes: { type: "string", default: "10" } },
  allowPositionals: true,
})
const [target] = positionals
const seconds = Number(values.minutes) * 60

try {
  if (!(seconds > 0)) throw new Error(`--minutes must be a positive number, got "${values.minutes}".`)
  if (output("rustup", ["toolchain", "list"])?.includes("nightly") !== true) {
    await run("rustup", ["toolchain", "install", "nightly", "--profile", "minimal"])
  }
  if (output("cargo", ["fuzz", "--version"]) === undefined) await run("cargo", ["install", "cargo-fuzz", "--locked"])
  const limits = [`-max_total_time=${seconds}`, "-rss_limit_mb=4096"]
  await run("cargo", ["+nightly", "fuzz", "run", target, "--", ...limits], { cwd: root })
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
