// node scripts/build-target.mjs TARGET: builds the binary of one target for a release, in
// target/binaries/RUST-TARGET/. Linux is always cross-compiled by zig. On other systems, Windows is built for
// windows-gnu (for tests only, not published), and macOS is only type-checked.
import { copyFileSync, existsSync, mkdirSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"

import { checkBinary } from "./check-binary.mjs"
import { debianRust, emptyNodeLibrary, Missing, zig } from "./cross-tools.mjs"
import { root } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"
import { findTarget } from "./targets.mjs"

const require = createRequire(import.meta.url)
const { name: NAME } = require("../package.json")
const { GLIBC_FLOOR } = require("../lib/native/load.js")

/** `triple` is the Rust target, and `zig` the target for zig if it links. */
function recipe({ triple, platform, arch, libc }) {
  if (libc === "glibc") return { triple, zig: `${triple}.${GLIBC_FLOOR}`, flags: "" }
  if (libc === "musl") return { triple, zig: triple, flags: "-C target-feature=-crt-static" }
  const native = platform === process.platform
  // Plain Windows has no VCRUNTIME140.dll.
  if (platform === "win32" && native) return { triple, flags: "-C target-feature=+crt-static" }
  if (native) return { triple, flags: "" }
  if (platform === "darwin") return { triple, zig: triple, flags: "-D warnings", checkOnly: true }
  const gnu = triple.replace("msvc", arch === "arm64" ? "gnullvm" : "gnu")
  return { triple: gnu, zig: gnu, flags: "-D warnings" }
}

const compiled = process.env.CARGO_TARGET_DIR ?? join(root, "target")

/** Where `buildTarget` puts the binary. */
export const folderOf = (target) => join(compiled, "binaries", recipe(target).triple)

/**
 * Builds and checks. Resolves to `{ triple, folder, facts }`: the Rust target, the folder with the binary, and
 * the result of check-binary.mjs; the last two are undefined if the code was only type-checked.
 */
export async function buildTarget(target) {
  const { triple, zig: zigTarget, flags, checkOnly } = recipe(target)
  const { env, args } = await standardLibrary(triple)
  if (zigTarget) Object.assign(env, (await zig()).env)
  if (triple.includes("windows-gnu")) env.LIBNODE_PATH = await emptyNodeLibrary()
  const options = { cwd: root, stdio: ["ignore", "ignore", "inherit"], env: { ...env, RUSTFLAGS: flags } }
  const common = ["--quiet", "--lib", "--target", zigTarget ?? triple, ...args]
  if (checkOnly) {
    await run("cargo-zigbuild", ["check", ...common], options)
    return { triple }
  }
  const [command, build] = zigTarget ? ["cargo-zigbuild", "zigbuild"] : ["cargo", "build"]
  await run(command, [build, "--release", ...common], options)
  const folder = folderOf(target)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${NAME}.${target.name}.node`)
  const library = { linux: "libNAME.so", darwin: "libNAME.dylib", win32: "NAME.dll" }[target.platform]
  copyFileSync(join(compiled, triple, "release", library.replace("NAME", NAME.replaceAll("-", "_"))), file)
  return { triple, folder, facts: await checkBinary(file, target) }
}

/** Provides the standard library: by rustup, otherwise by compiling Debian's sources with Debian's compiler. */
async function standardLibrary(triple) {
  if (output("rustup", ["target", "add", triple], { cwd: root }) !== undefined)
    return { env: { ...process.env }, args: [] }
  const installed = output("rustc", ["--print", "target-libdir", "--target", triple])
  if (installed && existsSync(installed.trim())) return { env: { ...process.env }, args: [] }
  return debianRust()
}

if (import.meta.filename === process.argv[1]) {
  try {
    const target = findTarget(process.argv[2])
    const { triple, folder, facts } = await buildTarget(target)
    console.log(folder ? `${target.name}: built for ${triple}, ${facts}.` : `${target.name}: checked for ${triple}.`)
  } catch (error) {
    console.error(error instanceof Missing ? `${error.message}.` : error.message)
    process.exitCode = 1
  }
}
