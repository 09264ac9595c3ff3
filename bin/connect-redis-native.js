#!/usr/bin/env node
// `npx connect-redis-native build`: the native binary from the sources in this package, for this system.
"use strict"

const { spawnSync } = require("node:child_process")
const { copyFileSync, mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")

const { system } = require("../lib/load.js")

const root = join(__dirname, "..")
const LIBRARY = {
  darwin: "libconnect_redis_native.dylib",
  win32: "connect_redis_native.dll",
}

function build() {
  const { libc, platform, target } = system()
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const { CARGO_TARGET_DIR = folder } = process.env
  // The flags of `npm run build`: without symbols, and a clone's target folder can be used again. On musl
  // Rust links the C library in by default, but Node has it already.
  const flags = [
    process.env.RUSTFLAGS,
    platform !== "win32" && "-C link-arg=-s",
    libc === "musl" && "-C target-feature=-crt-static",
  ]
  const env = { ...process.env, CARGO_TARGET_DIR, RUSTFLAGS: flags.filter(Boolean).join(" ") }
  try {
    const { error, status } = spawnSync("cargo", ["build", "--release", "--locked", "--lib"], {
      cwd: root,
      env,
      stdio: "inherit",
    })
    if (error?.code === "ENOENT")
      throw new Error("There is no cargo here; install Rust 1.88 or newer as rustup.rs says.")
    if (error) throw error
    if (status !== 0) throw new Error(`cargo failed with exit code ${status}.`)
    const file = join(root, `connect-redis-native.${target}.node`)
    copyFileSync(join(CARGO_TARGET_DIR, "release", LIBRARY[platform] ?? "libconnect_redis_native.so"), file)
    console.log(`Built ${file}.`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

try {
  if (process.argv.length !== 3 || process.argv[2] !== "build") {
    throw new Error("Usage: connect-redis-native build")
  }
  build()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
