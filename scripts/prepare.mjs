import { existsSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"

import { root } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"

const OLDEST_NODE = 20
const OLDEST_RUST = [1, 88]

/** Prepares a fresh clone: installs and builds only what is missing or out of date. */
export async function prepare() {
  if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
    throw new Error(`Node ${OLDEST_NODE} or newer is needed, this is ${process.versions.node}.`)
  }
  if (changed("node_modules/.package-lock.json") < changed("package-lock.json")) {
    console.error("Installing the development packages (about a minute)...")
    await run("npm", ["ci", "--no-audit", "--no-fund"], { cwd: root })
  }
  if (newest(readdirSync(root).filter((name) => name.endsWith(".node"))) < newest(sources())) {
    needRust()
    console.error("Building the native binary (about two minutes the first time)...")
    await run("npm", ["run", "build"], { cwd: root })
  }
}

function needRust() {
  const { channel } = /rustc (?<channel>\d+\.\d+)/.exec(output("rustc", ["--version"]) ?? "")?.groups ?? {}
  const [major, minor] = (channel ?? "0.0").split(".").map(Number)
  if (major < OLDEST_RUST[0] || (major === OLDEST_RUST[0] && minor < OLDEST_RUST[1])) {
    throw new Error(
      `Rust ${OLDEST_RUST.join(".")} or newer is needed, found ${channel ?? "none"}; install it from https://rustup.rs.`,
    )
  }
}

function sources() {
  const files = readdirSync(join(root, "src"), { recursive: true }).filter((name) => name.endsWith(".rs"))
  return ["Cargo.toml", "Cargo.lock", "build.rs", ...files.map((name) => join("src", name))]
}

const newest = (files) => Math.max(0, ...files.map(changed))

function changed(file) {
  const path = join(root, file)
  return existsSync(path) ? statSync(path).mtimeMs : 0
}
