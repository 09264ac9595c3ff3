#!/usr/bin/env node
// `npx connect-redis-native build`: builds the native binary for this system from the sources in this package.
// `npx connect-redis-native keygen`: prints a key for the option encryption, in Base64.
"use strict"

const { spawnSync } = require("node:child_process")
const { randomBytes } = require("node:crypto")
const { copyFileSync, mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")

const { system } = require("../lib/native/load.js")
const { KEY_BYTES } = require("../lib/sealing/keys.js")

const root = join(__dirname, "..")
/** cargo prints a message for every file that it builds. */
const MESSAGES_MAX_BYTES = 2 ** 26

function build() {
  const { libc, platform, target } = system()
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const { CARGO_TARGET_DIR = folder } = process.env
  // The flags of `npm run build`: without symbols, and with a clone's target folder reused. On musl
  // Rust links the C library in by default, but Node has it already.
  const flags = [
    process.env.RUSTFLAGS,
    platform !== "win32" && "-C link-arg=-s",
    libc === "musl" && "-C target-feature=-crt-static",
  ]
  const env = { ...process.env, CARGO_TARGET_DIR, RUSTFLAGS: flags.filter(Boolean).join(" ") }
  try {
    const options = ["build", "--release", "--locked", "--lib", "--message-format=json-render-diagnostics"]
    const { error, status, stdout } = spawnSync("cargo", options, {
      cwd: root,
      env,
      encoding: "utf8",
      maxBuffer: MESSAGES_MAX_BYTES,
      stdio: ["ignore", "pipe", "inherit"],
    })
    if (error?.code === "ENOENT")
      throw new Error("cargo was not found; install Rust 1.88 or newer from https://rustup.rs.")
    if (error) throw error
    if (status !== 0) throw new Error(`cargo failed with exit code ${status}.`)
    const file = join(root, `connect-redis-native.${target}.node`)
    copyFileSync(libraryOf(stdout), file)
    console.log(`Built ${file}.`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** cargo's messages name the library: its folder depends on cargo's configuration. */
function libraryOf(messages) {
  const artifacts = messages
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line))
    .filter(({ reason, target }) => reason === "compiler-artifact" && target.kind.includes("cdylib"))
  return artifacts.at(-1).filenames.find((name) => /\.(so|dylib|dll)$/.test(name))
}

/** Nothing else is printed: the output may go into a file, or to a store of secrets. */
function keygen() {
  console.log(randomBytes(KEY_BYTES).toString("base64"))
}

const COMMANDS = Object.assign(Object.create(null), { build, keygen })

try {
  const command = process.argv.length === 3 ? COMMANDS[process.argv[2]] : undefined
  if (command === undefined) throw new Error("Usage: connect-redis-native build | keygen")
  command()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
