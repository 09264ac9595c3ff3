"use strict"

const { existsSync, statSync } = require("node:fs")
const { createRequire } = require("node:module")
const { join } = require("node:path")

const { version } = require("../../package.json")
const { optionError } = require("../errors.js")

const NAME = "connect-redis-native"
/** The newest glibc that the prebuilt binaries may need; scripts/check-binary.mjs checks it. */
const GLIBC_FLOOR = "2.17"

/** This system by the names that package managers use, and the name of its binary. */
function system() {
  const { platform, arch } = process
  if (platform !== "linux") {
    return { platform, arch, target: `${platform}-${arch}${platform === "win32" ? "-msvc" : ""}` }
  }
  const glibc = glibcVersion()
  const libc = glibc === undefined ? "musl" : "glibc"
  return { platform, arch, libc, glibc, target: `linux-${arch}-${libc === "musl" ? "musl" : "gnu"}` }
}

/** Undefined if the C library is not glibc. */
function glibcVersion() {
  const { report } = process
  if (typeof report?.getReport === "function") {
    const { excludeNetwork } = report
    // Looking up the names of open sockets' peers may take seconds.
    report.excludeNetwork = true
    try {
      const { header } = report.getReport()
      if (header !== undefined) return header.glibcVersionRuntime
    } catch {
      // Deno may deny access to system information.
    } finally {
      report.excludeNetwork = excludeNetwork
    }
  }
  const musl = { x64: "x86_64", arm64: "aarch64" }[process.arch] ?? process.arch
  return existsSync(`/lib/ld-musl-${musl}.so.1`) ? undefined : "of unknown version"
}

/** The binary that was built in a clone, or by `npx connect-redis-native build`. */
function loadBeside({ target }) {
  const file = join(__dirname, "../..", `${NAME}.${target}.node`)
  // A bundler would try to bundle a plain require.
  return existsSync(file) ? createRequire(__filename)(file) : undefined
}

/**
 * Literal names in a try block: bundlers and file tracers then find the package of a platform, and do not
 * require those of the others.
 */
function loadPackage({ target }) {
  try {
    switch (target) {
      case "linux-x64-gnu":
        check(require("connect-redis-native-linux-x64-gnu/package.json"))
        return require("connect-redis-native-linux-x64-gnu")
      case "linux-x64-musl":
        check(require("connect-redis-native-linux-x64-musl/package.json"))
        return require("connect-redis-native-linux-x64-musl")
      case "linux-arm64-gnu":
        check(require("connect-redis-native-linux-arm64-gnu/package.json"))
        return require("connect-redis-native-linux-arm64-gnu")
      case "linux-arm64-musl":
        check(require("connect-redis-native-linux-arm64-musl/package.json"))
        return require("connect-redis-native-linux-arm64-musl")
      case "darwin-x64":
        check(require("connect-redis-native-darwin-x64/package.json"))
        return require("connect-redis-native-darwin-x64")
      case "darwin-arm64":
        check(require("connect-redis-native-darwin-arm64/package.json"))
        return require("connect-redis-native-darwin-arm64")
      case "win32-x64-msvc":
        check(require("connect-redis-native-win32-x64-msvc/package.json"))
        return require("connect-redis-native-win32-x64-msvc")
      case "win32-arm64-msvc":
        check(require("connect-redis-native-win32-arm64-msvc/package.json"))
        return require("connect-redis-native-win32-arm64-msvc")
    }
  } catch (error) {
    // The other lines list the files that required it.
    const [what] = error.message.split("\n")
    throw Object.assign(new Error(what, { cause: error }), { code: error.code })
  }
  throw Object.assign(new Error("the package is not installed"), { code: "NO_PACKAGE" })
}

function check({ name, version: found, config }) {
  if (found !== version) throw new Error(`has version ${found}, but version ${version} is needed`)
  const bytes = sizeOf(name)
  // dlopen of a truncated file may crash the process.
  if (bytes !== undefined && bytes !== config.bytes) {
    throw new Error(`the file has ${bytes} bytes, it should have ${config.bytes}`)
  }
}

/** Undefined if a bundler has moved the file. */
function sizeOf(name) {
  try {
    return statSync(createRequire(__filename).resolve(name)).size
  } catch {
    return undefined
  }
}

/** The native half. Throws an error that names the remedy if no binary loads. */
function load() {
  const here = system()
  let beside
  try {
    const binding = loadBeside(here)
    if (binding !== undefined) return binding
  } catch (error) {
    beside = error
  }
  try {
    return loadPackage(here)
  } catch (error) {
    throw Object.assign(optionError(explanation(here, beside, error)), { cause: beside ?? error.cause ?? error })
  }
}

function explanation({ platform, arch, libc, glibc, target }, beside, failure) {
  if ([beside, failure].some((error) => error?.code === "ERR_DLOPEN_DISABLED")) {
    return `Native addons are disabled here, and ${NAME} ${version} is one: start Node without --no-addons and, with the permission model, with --allow-addons. Or pass {client} to do without it.`
  }
  const name = `${NAME}-${target}`
  const texts = [beside, failure].map((error) => error?.message ?? "not there")
  const needed = neededGlibc(texts.join("\n"))
  const old = needed !== undefined && `It needs glibc ${needed}, this system has ${glibc}: use a newer one, or build.`
  const absent = failure.code === "MODULE_NOT_FOUND" && beside === undefined
  const flags = `--os=${platform} --cpu=${arch}${libc === undefined ? "" : ` --libc=${libc}`}`
  const architectures = { os: [platform], cpu: [arch], ...(libc && { libc: [libc] }) }
  const install = [
    `- npm: npm install ${flags} --include=optional`,
    `- pnpm: pnpm install ${flags}, or set supportedArchitectures in pnpm-workspace.yaml`,
    `- yarn: yarn config set --json supportedArchitectures '${JSON.stringify(architectures)}' && yarn install`,
  ]
  const build = `- from source, with Rust 1.88 or newer: npx ${NAME} build`
  return [
    `The native binary of ${NAME} ${version} could not be loaded.`,
    `System: ${platform} ${arch}${libc === "glibc" ? `, glibc ${glibc} (prebuilt binaries need ${GLIBC_FLOOR} or newer)` : libc ? `, ${libc}` : ""}, Node ${process.version}`,
    "Tried:",
    `- ${NAME}.${target}.node in the package: ${texts[0]}`,
    `- ${name}: ${texts[1]}`,
    ...(old ? [old] : []),
    failure.code === "NO_PACKAGE" || old
      ? "To fix it:"
      : absent
        ? "It was left out, or installed for another system. To fix it:"
        : "It was damaged, or installed for another system. To fix it, delete node_modules, then:",
    ...(failure.code === "NO_PACKAGE" || old ? [] : install),
    build,
    "Or pass {client} to do without it.",
  ].join("\n")
}

/** The glibc version that dlopen missed: "version `GLIBC_2.34' not found". */
function neededGlibc(text) {
  const versions = [...text.matchAll(/GLIBC_(\d+\.\d+)\S* not found/g)].map(([, found]) => found)
  return versions.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1)
}

module.exports = { GLIBC_FLOOR, load, system }
