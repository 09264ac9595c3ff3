// node scripts/build-release.mjs TARGET: the binary of one Rust target, as it is published.
import { createRequire } from "node:module"
import { join } from "node:path"

import { targets } from "./pack.mjs"
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const { napi } = createRequire(import.meta.url)("../package.json")
const [triple] = process.argv.slice(2)

try {
  const at = napi.targets.indexOf(triple)
  if (at === -1) throw new Error(`TARGET must be one of ${napi.targets.join(", ")}, got ${triple}.`)
  // napi's own toolchain has glibc 2.17; musl is cross-compiled by zig.
  const how = triple.endsWith("gnu") ? ["--use-napi-cross"] : triple.endsWith("musl") ? ["--cross-compile"] : []
  const cli = join(root, "node_modules", "@napi-rs", "cli", "dist", "cli.js")
  const options = ["--platform", "--release", "--strip", "--no-js", "--dts", "binding.d.ts", "--target", triple, ...how]
  await run("rustup", ["target", "add", triple])
  await run(process.execPath, [cli, "build", ...options], { cwd: root })
  if (triple.endsWith("gnu")) {
    const file = `${napi.binaryName}.${targets({ napi })[at]}.node`
    await run(process.execPath, [join(root, "scripts", "check-glibc.mjs"), file], { cwd: root })
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
