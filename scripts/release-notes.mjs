// node scripts/release-notes.mjs [TAG]: prints the version's section of CHANGELOG.md, after these checks: TAG
// and Cargo.toml match the version in package.json, and the section is not empty. Without TAG (a rehearsal) the
// section may still be "Unreleased". With --publish it becomes a GitHub release, or replaces the text of an
// existing one.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { root, version } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"

/** The section of a version in the text of a changelog. */
export function releaseNotes(changelog, wanted) {
  const section = changelog.split(/^## /m).find((part) => /^\S+/.exec(part)[0] === wanted)
  const notes = section?.slice(section.indexOf("\n")).trim()
  if (!notes) throw new Error(`CHANGELOG.md has no text under "## ${wanted}"; write it.`)
  return notes
}

/**
 * The notes of a release, after a check that its tag, package.json, Cargo.toml and changelog agree. An undefined `tag`
 * is a rehearsal.
 */
export function checkedNotes({ tag, npmVersion, cargoToml, changelog }) {
  if (tag !== undefined && tag !== `v${npmVersion}`) {
    throw new Error(`The tag must be v${npmVersion}, as in package.json, got ${tag}.`)
  }
  const [, cargoVersion] = /^\[package\][^[]*?^version = "(.*?)"/ms.exec(cargoToml) ?? []
  if (cargoVersion !== npmVersion) {
    throw new Error(`Cargo.toml must have package.json's version ${npmVersion}, got ${cargoVersion}.`)
  }
  const unreleased = tag === undefined && !changelog.includes(`\n## ${npmVersion}`)
  return releaseNotes(changelog, unreleased ? "Unreleased" : npmVersion)
}

/** "next" for a prerelease such as 1.0.0-rc.1: `npm install` without a version must not get it. */
export function distTag(npmVersion) {
  return npmVersion.includes("-") ? "next" : "latest"
}

/** The arguments of gh that create a release, or update it if it `exists` already. */
export function ghRelease({ tag, notes, exists }) {
  const prerelease = distTag(tag) === "next" ? ["--prerelease"] : []
  return ["release", exists ? "edit" : "create", tag, "--title", tag, "--notes", notes, "--verify-tag", ...prerelease]
}

if (import.meta.filename === process.argv[1]) {
  try {
    const { values, positionals } = parseArgs({ options: { publish: { type: "boolean" } }, allowPositionals: true })
    const [tag] = positionals
    const read = (name) => readFileSync(join(root, name), "utf8")
    const notes = checkedNotes({
      tag,
      npmVersion: version(),
      cargoToml: read("Cargo.toml"),
      changelog: read("CHANGELOG.md"),
    })
    console.log(notes)
    if (values.publish) {
      const exists = output("gh", ["release", "view", tag]) !== undefined
      await run("gh", ghRelease({ tag, notes, exists }))
    }
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
