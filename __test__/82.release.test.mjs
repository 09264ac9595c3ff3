// The scripts of the release workflow: packing, notes, publishing.
import assert from "node:assert/strict"
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join, posix } from "node:path"
import { after, before, describe, test } from "node:test"

import { linkedCrates, thirdPartyLicenses } from "../scripts/licenses.mjs"
import { pack, targets } from "../scripts/pack.mjs"
import { checkedNotes, distTag, ghRelease, releaseNotes } from "../scripts/release-notes.mjs"
import { root } from "../testing/project.mjs"
import { output } from "../testing/run.mjs"

const require = createRequire(import.meta.url)
const manifest = require("../package.json")
const NAME = manifest.name

const listed = (tarball) => output("tar", ["tzf", tarball]).trim().split("\n")
const contents = (tarball) => listed(tarball).map((name) => name.replace("package/", ""))
const readPacked = (tarball, file) => output("tar", ["xzOf", tarball, `package/${file}`])

test("the loader knows the package of every target, and so does the release workflow", () => {
  const loader = readFileSync(join(root, "lib/native/load.js"), "utf8")
  const workflow = readFileSync(join(root, ".github/workflows/release.yml"), "utf8")
  for (const name of targets(manifest)) {
    assert.ok(loader.includes(`require("connect-redis-native-${name}")`), name)
    assert.ok(loader.includes(`require("connect-redis-native-${name}/package.json")`), name)
  }
  for (const triple of manifest.napi.targets) assert.ok(workflow.includes(`target: ${triple},`), triple)
})

test("only a tag publishes, after a check of the versions and a test on every system", () => {
  const workflow = readFileSync(join(root, ".github/workflows/release.yml"), "utf8")
  const job = (name) => new RegExp(`^  ${name}:\\n((?:    .*\\n|\\n)+)`, "m").exec(workflow)[1]
  assert.match(job("build"), /^    needs: check$/m)
  assert.match(job("pack"), /^    needs: build$/m)
  assert.match(job("smoke"), /^    needs: pack$/m)
  assert.match(job("publish"), /^    needs: smoke\n    if: github\.event_name == 'push' && github\.ref_type == 'tag'$/m)
  assert.match(workflow, /^  workflow_dispatch:$/m)
  for (const name of ["check", "build", "pack", "smoke"]) assert.doesNotMatch(job(name), /publish/)
})

test("a release with a missing binary is refused with its name", async () => {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  try {
    await assert.rejects(pack({ to: folder, binaries: folder, all: true, quiet: true }), {
      message: "connect-redis-native.linux-x64-gnu.node is missing.",
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

describe("a release of eight binaries", () => {
  let folder
  let main
  let platforms
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    const binaries = join(folder, "binaries")
    mkdirSync(binaries)
    for (const target of targets(manifest)) {
      writeFileSync(join(binaries, `${NAME}.${target}.node`), `stand-in of ${target}`)
    }
    ;({ main, platforms } = await pack({ to: join(folder, "release"), binaries, all: true, quiet: true }))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test("is nine tarballs of one version", () => {
    const names = [NAME, ...targets(manifest).map((target) => `${NAME}-${target}`)]
    const files = names.map((name) => `${name}-${manifest.version}.tgz`)
    assert.equal(files.length, 9)
    assert.deepEqual(readdirSync(join(folder, "release")).toSorted(), files.toSorted())
    const { optionalDependencies, version } = JSON.parse(readPacked(main, "package.json"))
    assert.equal(version, manifest.version)
    const expected = names.slice(1).map((name) => [name, manifest.version])
    assert.deepEqual(optionalDependencies, Object.fromEntries(expected))
  })

  const SYSTEMS = {
    "linux-x64-gnu": { os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
    "linux-arm64-gnu": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"] },
    "linux-x64-musl": { os: ["linux"], cpu: ["x64"], libc: ["musl"] },
    "linux-arm64-musl": { os: ["linux"], cpu: ["arm64"], libc: ["musl"] },
    "darwin-x64": { os: ["darwin"], cpu: ["x64"] },
    "darwin-arm64": { os: ["darwin"], cpu: ["arm64"] },
    "win32-x64-msvc": { os: ["win32"], cpu: ["x64"] },
    "win32-arm64-msvc": { os: ["win32"], cpu: ["arm64"] },
  }
  for (const [target, expected] of Object.entries(SYSTEMS)) {
    test(`${target}: its system, its binary and the licences in it`, () => {
      const file = `${NAME}.${target}.node`
      const own = JSON.parse(readPacked(platforms[target], "package.json"))
      const { os, cpu, libc, version, name, main: entry, config, scripts, license } = own
      assert.deepEqual({ os, cpu, ...(libc && { libc }) }, expected)
      assert.deepEqual(
        { version, name, entry, scripts, license },
        { version: manifest.version, name: `${NAME}-${target}`, entry: file, scripts: undefined, license: "MIT" },
      )
      assert.equal(readPacked(platforms[target], file), `stand-in of ${target}`)
      assert.equal(config.bytes, `stand-in of ${target}`.length)
      const files = ["LICENSE", "README.md", "THIRD-PARTY-LICENSES.txt", file, "package.json"]
      assert.deepEqual(contents(platforms[target]).toSorted(), files.toSorted())
    })
  }

  test("names the origin of the package", () => {
    const { bugs, homepage, repository, author } = JSON.parse(readPacked(main, "package.json"))
    assert.match(bugs.url, /^https:/)
    assert.match(homepage, /^https:/)
    assert.match(repository.url, /^git\+https:/)
    assert.equal(author, "The connect-redis-native authors")
  })

  test("has no dead link in its Markdown", () => {
    const files = contents(main)
    const dead = []
    for (const file of files.filter((name) => name.endsWith(".md"))) {
      const text = readPacked(main, file)
      for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(link)) continue
        const [path, anchor] = link.split("#")
        const target = path === "" ? file : posix.join(dirname(file), path)
        const isFolder = files.some((name) => name.startsWith(`${target}/`))
        if (!files.includes(target) && !isFolder) dead.push(`${file}: ${link}`)
        else if (anchor && !anchors(readPacked(main, target)).includes(anchor)) dead.push(`${file}: ${link}`)
      }
    }
    assert.deepEqual(dead, [])
  })
})

/** The anchors that GitHub gives to the headings of a Markdown text. */
function anchors(text) {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(" ", "-"),
  )
}

describe("licences", () => {
  test("are those of the crates in the binary, each with a text", () => {
    const crates = linkedCrates("x86_64-unknown-linux-gnu").map(({ name }) => name)
    for (const name of ["napi", "redis", "ring", "rustls", "tokio", "serde_json"])
      assert.ok(crates.includes(name), name)
    for (const name of ["napi-derive", "napi-build", NAME]) assert.ok(!crates.includes(name), name)
    const text = thirdPartyLicenses("x86_64-unknown-linux-gnu")
    for (const name of crates) assert.match(text, new RegExp(`^(.*, )?${name}(, .*)?:$`, "m"))
  })

  test("of a system's own crates are in its package only", () => {
    const crates = linkedCrates("x86_64-pc-windows-msvc").map(({ name }) => name)
    assert.ok(crates.includes("windows-sys"))
    assert.ok(!linkedCrates("x86_64-unknown-linux-gnu").some(({ name }) => name === "windows-sys"))
  })
})

describe("release notes", () => {
  const changelog = "# Changelog\n\n## 1.1.0\n\n- New.\n\n## 1.0.0 (2026-01-01)\n\n- First.\n"
  const cargoToml = '[package]\nname = "x"\nversion = "1.1.0"\n\n[dependencies]\nversion = "9"\n'
  const release = { tag: "v1.1.0", npmVersion: "1.1.0", cargoToml, changelog }

  test("are the version's section of the changelog", () => {
    assert.equal(releaseNotes(changelog, "1.1.0"), "- New.")
    assert.equal(releaseNotes(changelog, "1.0.0"), "- First.")
    assert.throws(() => releaseNotes(changelog, "1.0"), /has no text under "## 1\.0"/)
    assert.equal(checkedNotes(release), "- New.")
  })

  test("are refused unless tag, package.json, Cargo.toml and changelog agree", () => {
    assert.throws(() => checkedNotes({ ...release, tag: "v1.0.0" }), /The tag must be v1\.1\.0/)
    const old = { ...release, cargoToml: cargoToml.replace("1.1.0", "1.0.0") }
    assert.throws(() => checkedNotes(old), /Cargo\.toml must have package\.json's version 1\.1\.0, got 1\.0\.0/)
    const unreleased = { ...release, changelog: "# Changelog\n\n## Unreleased\n\n- Soon.\n" }
    assert.throws(() => checkedNotes(unreleased), /has no text under "## 1\.1\.0"/)
  })

  test("are those of the unreleased section in a rehearsal", () => {
    const unreleased = "# Changelog\n\n## Unreleased\n\n- Soon.\n\n## 1.0.0\n\n- First.\n"
    assert.equal(checkedNotes({ ...release, tag: undefined, changelog: unreleased }), "- Soon.")
    assert.equal(checkedNotes({ ...release, tag: undefined }), "- New.")
  })

  test("of this checkout pass the rehearsal", () => {
    assert.match(output(process.execPath, [join(root, "scripts/release-notes.mjs")]) ?? "", /^- /)
  })
})

test("npm does not install a prerelease by default", () => {
  assert.deepEqual(["1.0.0", "1.0.0-rc.1"].map(distTag), ["latest", "next"])
})

test("a release on GitHub is created once, and updated by a second run", () => {
  const made = ghRelease({ tag: "v1.0.0", notes: "New.", exists: false })
  assert.deepEqual(made, ["release", "create", "v1.0.0", "--title", "v1.0.0", "--notes", "New.", "--verify-tag"])
  const again = ghRelease({ tag: "v1.0.0-rc.1", notes: "New.", exists: true })
  assert.deepEqual([again[1], again.at(-1)], ["edit", "--prerelease"])
})
