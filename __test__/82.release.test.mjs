import assert from "node:assert/strict"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"

import { neededGlibc } from "../scripts/check-glibc.mjs"
import { pack, targets } from "../scripts/pack.mjs"
import { root } from "../scripts/prepare.mjs"
import { releaseNotes } from "../scripts/release-notes.mjs"
import { output } from "../scripts/run.mjs"

const require = createRequire(import.meta.url)
const manifest = require("../package.json")
const { system } = require("../lib/native/load.js")
const here = system()

test("the loader knows the package of every target, and so does the release workflow", () => {
  const loader = readFileSync(join(root, "lib/native/load.js"), "utf8")
  const workflow = readFileSync(join(root, ".github/workflows/release.yml"), "utf8")
  for (const name of targets(manifest)) {
    assert.ok(loader.includes(`require("connect-redis-native-${name}")`), name)
    assert.ok(loader.includes(`require("connect-redis-native-${name}/package.json")`), name)
  }
  for (const triple of manifest.napi.targets) assert.ok(workflow.includes(`target: ${triple},`), triple)
})

test("a release with a missing binary is refused, by its name", async () => {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  try {
    await assert.rejects(pack({ to: folder, binaries: folder, all: true, quiet: true }), {
      message: "connect-redis-native.linux-x64-gnu.node is missing.",
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test("release notes are the version's section of the changelog", () => {
  const changelog = "# Changelog\n\n## 1.1.0\n\n- New.\n\n## 1.0.0 (2026-01-01)\n\n- First.\n"
  assert.equal(releaseNotes(changelog, "1.1.0"), "- New.")
  assert.equal(releaseNotes(changelog, "1.0.0"), "- First.")
  assert.throws(() => releaseNotes(changelog, "1.0"), /says nothing under "## 1\.0"/)
})

const noGlibc = here.libc !== "glibc" && "this system has no glibc"
const noReadelf = output("readelf", ["--version"]) === undefined && "there is no readelf here"
test("the glibc that a binary needs is read from it", { skip: noGlibc || noReadelf }, () => {
  const needed = neededGlibc(join(root, `connect-redis-native.${here.target}.node`))
  assert.match(needed, /^2\.\d+$/)
  assert.ok(needed.localeCompare(here.glibc, "en", { numeric: true }) <= 0, needed)
  assert.equal(neededGlibc(join(root, "package.json")), undefined)
})
