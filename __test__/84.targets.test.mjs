// The binaries for other systems: their files are checked, and one is built and run here.
import assert from "node:assert/strict"
import { readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { describe, test } from "node:test"

import { buildTarget } from "../scripts/build-target.mjs"
import { checkBinary, neededGlibc, readBinary } from "../scripts/check-binary.mjs"
import { lief, Missing } from "../scripts/cross-tools.mjs"
import { smokeTarget, withTarballs } from "../scripts/smoke-target.mjs"
import { findTarget, TARGETS } from "../scripts/targets.mjs"
import { root } from "../testing/project.mjs"

const { system } = createRequire(import.meta.url)("../lib/native/load.js")
const here = system()
const BUILD_MS = 15 * 60_000
const SMOKE_CHECKS = 13
const own = join(root, `connect-redis-native.${here.target}.node`)
/** An addon for several systems, from a package that is installed anyway. */
const foreign = join(root, "node_modules", "pnpm", "dist")

/** The path of pnpm's addon for `name`. */
function foreignBinary(name) {
  return join(
    foreign,
    readdirSync(foreign).find((file) => file.startsWith(`reflink.${name}-`)),
  )
}

/** The reason why `act` is not possible here, or false. */
async function missing(act) {
  try {
    await act()
    return false
  } catch (error) {
    if (error instanceof Missing) return error.message
    throw error
  }
}

test("a target is found by the name of its package and by Rust's", () => {
  assert.equal(TARGETS.length, 8)
  const musl = {
    name: "linux-x64-musl",
    triple: "x86_64-unknown-linux-musl",
    platform: "linux",
    arch: "x64",
    libc: "musl",
  }
  assert.deepEqual(findTarget("linux-x64-musl"), musl)
  assert.deepEqual(findTarget("x86_64-unknown-linux-musl"), musl)
  assert.throws(() => findTarget("linux-x64"), /^Error: TARGET must be one of linux-x64-gnu, .*, got linux-x64\.$/)
})

describe("a binary is read", { skip: await missing(lief) }, () => {
  test("that was built here", async () => {
    const { format, processor, libraries, exports } = await readBinary(own)
    assert.equal(format, { linux: "ELF", darwin: "Mach-O", win32: "PE" }[here.platform])
    assert.equal(processor, here.arch)
    assert.ok(libraries.length > 0)
    assert.deepEqual(exports, ["napi_register_module_v1"])
  })

  test("for the glibc that it needs", { skip: here.libc !== "glibc" && "this system has no glibc" }, async () => {
    const needed = await neededGlibc(own)
    assert.match(needed, /^2\.\d+$/)
    assert.ok(needed.localeCompare(here.glibc, "en", { numeric: true }) <= 0, needed)
    assert.equal(await neededGlibc(join(root, "package.json")), undefined)
  })

  test("and serves macOS", async () => {
    for (const name of ["darwin-x64", "darwin-arm64"]) {
      assert.match(await checkBinary(foreignBinary(name), findTarget(name)), /^macOS 1[01]\.\d+, \/usr\/lib\//)
    }
  })

  test("and is refused for a DLL that plain Windows does not have", async () => {
    for (const name of ["win32-x64-msvc", "win32-arm64-msvc"]) {
      await assert.rejects(checkBinary(foreignBinary(name), findTarget(name)), {
        message: `${foreignBinary(name)} does not serve ${name}: it needs VCRUNTIME140.dll.`,
      })
    }
  })

  test("and is refused for another processor, system or file", async () => {
    const mac = foreignBinary("darwin-x64")
    await assert.rejects(checkBinary(mac, findTarget("darwin-arm64")), /: it is for x64; it has no signature\.$/)
    await assert.rejects(checkBinary(mac, findTarget("linux-x64-gnu")), {
      message: `${mac} is Mach-O; linux-x64-gnu has ELF.`,
    })
    const text = join(root, "package.json")
    await assert.rejects(checkBinary(text, findTarget("darwin-x64")), {
      message: `${text} is no binary; darwin-x64 has Mach-O.`,
    })
  })
})

test("linux-x64-musl is built, needs musl only, and serves sessions", { timeout: BUILD_MS }, async (t) => {
  const target = findTarget("linux-x64-musl")
  let lines
  const reason = await missing(async () => {
    const { folder, facts } = await buildTarget(target)
    assert.equal(facts, "libc.so")
    ;({ lines } = await withTarballs(target, folder, (release) => smokeTarget(target, release)))
  })
  if (reason) return t.skip(reason)
  assert.equal(lines.filter((line) => line.startsWith("ok: ")).length, SMOKE_CHECKS, lines.join("\n"))
})
