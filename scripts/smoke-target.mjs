// node scripts/smoke-target.mjs TARGET [--tarballs FOLDER] [--without-server]: npm installs the packed tarballs
// as on that system, and smoke-app.mjs runs under a Node for it: directly, or by musl's loader, QEMU or Wine.
// Without FOLDER, the binary is that of build-target.mjs.
import { spawn } from "node:child_process"
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"

import { folderOf } from "./build-target.mjs"
import { debianFiles, Missing, nodeWheel, wine } from "./cross-tools.mjs"
import { pack } from "./pack.mjs"
import { root, version } from "../testing/project.mjs"
import { freePort, useRedis } from "../testing/redis-server.mjs"
import { run } from "../testing/run.mjs"
import { findTarget } from "./targets.mjs"

const require = createRequire(import.meta.url)
const { name: NAME } = require("../package.json")
const { system } = require("../lib/native/load.js")
const NODE = "24.19.0"
/** Wine 8 does not support the memory reservations of Node 24. */
const NODE_FOR_WINE = "22.20.0"
const SMOKE_MS = 180_000

/** How to run programs of each target: the start of a command line, and its environment. */
const WAYS = {
  "linux-x64-musl": async () => {
    const node = await nodeWheel(NODE, "musllinux_1_2_x86_64")
    const musl = await debianFiles("amd64", ["musl"])
    return { by: "the loader of musl", command: [join(musl, "usr", "lib", "ld-musl-x86_64.so.1"), node] }
  },
  "linux-arm64-gnu": async () => qemu(await nodeWheel(NODE, "manylinux_2_28_aarch64")),
  "linux-arm64-musl": async () => qemu(await nodeWheel(NODE, "musllinux_1_2_aarch64")),
  "win32-x64-msvc": async () => {
    const node = await nodeWheel(NODE_FOR_WINE, "win_amd64")
    return { by: "Wine", command: ["wine", node], env: await wine() }
  },
}

async function qemu(node) {
  const emulator = join(await debianFiles("amd64", ["qemu-user"]), "usr", "bin", "qemu-aarch64")
  const base = await debianFiles("arm64", ["libc6", "libgcc-s1", "libstdc++6", "musl"])
  return { by: "QEMU", command: [emulator, "-L", base, node] }
}

/** How to run `target` here; throws a Missing if that is not possible. */
function way({ name, platform }) {
  if (name === system().target) return { by: "this system", command: [process.execPath] }
  const here = process.platform === "linux" && process.arch === "x64"
  if (here && WAYS[name]) return WAYS[name]()
  throw new Missing(`${platform === "darwin" ? "macOS" : name} cannot run on ${process.platform} ${process.arch}`)
}

/**
 * Installs the tarballs and runs the checks. `release` has the paths of both tarballs. Resolves to `{ by, lines
 * }`: the program that ran the target's Node, and the output.
 */
export async function smokeTarget(target, release, { withoutServer = false } = {}) {
  const { by, command, env = process.env } = await way(target)
  const project = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const redis = withoutServer ? undefined : await useRedis()
  try {
    const [main, binary] = release.map((tarball) => `file:${tarball}`)
    // As an optional dependency, because npm checks other dependencies against this system instead of the
    // requested one.
    const manifest = { private: true, optionalDependencies: { [`${NAME}-${target.name}`]: binary } }
    writeFileSync(join(project, "package.json"), JSON.stringify(manifest))
    copyFileSync(join(root, "scripts", "smoke-app.mjs"), join(project, "smoke-app.mjs"))
    const { platform, arch, libc } = target
    const foreign = [`--os=${platform}`, `--cpu=${arch}`, ...(libc ? [`--libc=${libc}`] : [])]
    const options = ["--no-audit", "--no-fund", "--ignore-scripts", ...foreign]
    const stdio = ["ignore", "ignore", "inherit"]
    await run("npm", ["install", ...options, main, "express-session"], { cwd: project, stdio })
    const urls = { REDIS_URL: redis?.url, REFUSED_URL: `redis://127.0.0.1:${await freePort()}` }
    return { by, lines: await runApp(command, { cwd: project, env: { ...env, ...urls } }) }
  } finally {
    await redis?.stop()
    rmSync(project, { recursive: true, force: true })
  }
}

/** The output goes to a file, because Node under Wine does not support pipes. */
async function runApp([program, ...args], options) {
  const file = join(options.cwd, "output.txt")
  const printed = openSync(file, "w")
  const child = spawn(program, [...args, "smoke-app.mjs"], { ...options, stdio: ["ignore", printed, printed] })
  const timer = setTimeout(() => child.kill("SIGKILL"), SMOKE_MS)
  try {
    const [code, signal] = await new Promise((settle, reject) => {
      child.once("error", reject).once("exit", (...how) => settle(how))
    })
    const text = readFileSync(file, "utf8").trimEnd()
    if (code !== 0) throw new Error(`The smoke test failed (${signal ?? `exit code ${code}`}):\n${text}`)
    return text.split(/\r?\n/)
  } finally {
    clearTimeout(timer)
    closeSync(printed)
  }
}

/** Packs the binary in `binaries`; `use` gets the paths of both tarballs. */
export async function withTarballs(target, binaries, use) {
  if (!existsSync(join(binaries, `${NAME}.${target.name}.node`))) {
    throw new Error(`${binaries} has no binary of ${target.name}: run node scripts/build-target.mjs ${target.name}.`)
  }
  const to = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  try {
    const { main, platforms } = await pack({ to, binaries, quiet: true })
    return await use([main, platforms[target.name]])
  } finally {
    rmSync(to, { recursive: true, force: true })
  }
}

if (import.meta.filename === process.argv[1]) {
  const options = { tarballs: { type: "string" }, "without-server": { type: "boolean" } }
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    const target = findTarget(positionals[0])
    const smoke = async (release) => {
      const { by, lines } = await smokeTarget(target, release, { withoutServer: values["without-server"] })
      console.log([`${target.name}, run by ${by}:`, ...lines].join("\n"))
    }
    if (values.tarballs) {
      await smoke([NAME, `${NAME}-${target.name}`].map((name) => resolve(values.tarballs, `${name}-${version()}.tgz`)))
    } else {
      await withTarballs(target, folderOf(target), smoke)
    }
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
