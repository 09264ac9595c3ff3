// The tarballs of a release, a registry that serves them, and empty projects that install them. Importing this
// module packs them before the first test.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before } from "node:test"

import { pack, targets } from "../../scripts/pack.mjs"
import { output } from "../../testing/run.mjs"
import { root } from "../../testing/project.mjs"
import { registryOfThisMachine, startRegistry } from "./registry.mjs"
import { ownServer } from "./servers.mjs"

const require = createRequire(import.meta.url)
export const manifest = require("../../package.json")
export const here = require("../../lib/native/load.js").system()
export const NAME = "connect-redis-native"
export const addon = `${NAME}-${here.target}`
export const file = `${NAME}.${here.target}.node`

const upstream = registryOfThisMachine()
export const skip = upstream === undefined && "nothing can be installed: the npm registry does not answer"
export const server = ownServer()
/** Removed after the tests. */
export const base = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
/** The tarballs: `main` and `platforms`, by target. */
export const release = {}
let registry
let folders = 0

before(async () => {
  Object.assign(release, await pack({ to: join(base, "release"), quiet: true }))
  registry = await startRegistry(published(), upstream)
})
after(() => {
  registry?.stop()
  rmSync(base, { recursive: true, force: true })
})

/** The main package and those of all platforms; packages of other systems contain only their package.json. */
function published() {
  const names = targets(manifest).map((target) => `${NAME}-${target}`)
  const main = readPacked(release.main)
  main.optionalDependencies = Object.fromEntries(names.map((name) => [name, manifest.version]))
  return [
    { manifest: main, tarball: repacked(release.main, (folder) => writeJson(join(folder, "package.json"), main)) },
    ...targets(manifest).map((target) => {
      const tarball = release.platforms[target] ?? foreign(target)
      return { manifest: readPacked(tarball), tarball }
    }),
  ]
}

/** The tarball of a system whose binary was not built here: its package.json, as napi writes it. */
function foreign(target) {
  const [os, cpu, abi] = target.split("-")
  const libc = { gnu: ["glibc"], musl: ["musl"] }[abi]
  return repacked(release.platforms[here.target], (folder) => {
    rmSync(join(folder, file))
    const own = readJson(join(folder, "package.json"))
    delete own.libc
    writeJson(join(folder, "package.json"), {
      ...own,
      name: `${NAME}-${target}`,
      os: [os],
      cpu: [cpu],
      ...(libc && { libc }),
    })
  })
}

function repacked(tarball, change) {
  const folder = emptyFolder()
  assert.notEqual(output("tar", ["xzf", tarball, "-C", folder]), undefined)
  change(join(folder, "package"))
  const printed = output("npm", [
    "pack",
    "--json",
    "--ignore-scripts",
    "--pack-destination",
    folder,
    join(folder, "package"),
  ])
  return join(folder, Object.values(JSON.parse(printed))[0].filename)
}

export const readPacked = (tarball) => JSON.parse(output("tar", ["xzOf", tarball, "package/package.json"]))
export const listPacked = (tarball) =>
  output("tar", ["tzf", tarball])
    .trim()
    .split("\n")
    .map((name) => name.replace("package/", ""))
export const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))
export const writeJson = (path, value) => writeFileSync(path, JSON.stringify(value, undefined, 2))

export function emptyFolder() {
  const folder = join(base, `project-${++folders}`)
  mkdirSync(folder)
  return folder
}

export function project(files = {}) {
  const folder = emptyFolder()
  writeJson(join(folder, "package.json"), { name: "app", version: "1.0.0", private: true })
  writeFileSync(join(folder, ".npmrc"), `registry=${registry.url}/\n`)
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

/** Runs a command to its end. Resolves to its output, with `code`. */
export function go(folder, command, args, env = {}) {
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_(OPTIONS|TEST_CONTEXT)$/i.test(name)),
  )
  const child = spawn(command, args, {
    cwd: folder,
    env: {
      ...clean,
      CI: "1",
      REDIS_URL: server.url,
      npm_config_cache: join(base, "npm-cache"),
      npm_config_fetch_timeout: "60000",
      YARN_GLOBAL_FOLDER: join(base, "yarn"),
      XDG_DATA_HOME: join(base, "pnpm-data"),
      XDG_CACHE_HOME: join(base, "pnpm-cache"),
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  })
  let stdout = ""
  child.stdout.on("data", (data) => (stdout += data))
  let stderr = ""
  child.stderr.on("data", (data) => (stderr += data))
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (code) => resolve({ code, stdout, stderr }))
  })
}

export async function must(folder, command, ...args) {
  const { code, stdout, stderr } = await go(folder, command, args)
  assert.equal(code, 0, `${[command, ...args].join(" ")}\n${stdout}\n${stderr}`)
  return stdout
}

/** Messages of package managers about a failure of the registry. */
const REGISTRY_FAILED =
  /ETIMEDOUT|ECONNRESET|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|ENOTFOUND|socket hang up|timed? ?out|\b(429|50[0234])\b/i

/** The same for installations: tries once more if the registry fails, and prints a note. */
async function install(folder, command, ...args) {
  const { code, stdout, stderr } = await go(folder, command, args)
  if (code === 0) return stdout
  if (!REGISTRY_FAILED.test(stdout + stderr)) assert.fail(`${[command, ...args].join(" ")}\n${stdout}\n${stderr}`)
  console.log(`The registry failed; trying once more: ${[command, ...args].join(" ")}`)
  return must(folder, command, ...args)
}

export const npm = (folder, ...args) => install(folder, "npm", ...args)
export const pnpm = (folder, ...args) =>
  install(folder, process.execPath, join(root, "node_modules/pnpm/bin/pnpm.cjs"), ...args)
export const yarn = (folder, ...args) =>
  install(folder, process.execPath, join(root, "node_modules/@yarnpkg/cli-dist/bin/yarn.js"), ...args)
export const tool = (folder, path, ...args) => must(folder, process.execPath, join(root, "node_modules", path), ...args)

export function yarnProject(nodeLinker, files) {
  const folder = project(files)
  const settings = [
    `nodeLinker: ${nodeLinker}`,
    `npmRegistryServer: "${registry.url}"`,
    `unsafeHttpWhitelist: ["127.0.0.1"]`,
    "enableTelemetry: false",
    "enableImmutableInstalls: false",
    "pnpEnableEsmLoader: true",
  ]
  writeFileSync(join(folder, ".yarnrc.yml"), `${settings.join("\n")}\n`)
  writeFileSync(join(folder, "yarn.lock"), "")
  return folder
}
