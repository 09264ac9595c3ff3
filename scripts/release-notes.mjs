// node scripts/release-notes.mjs TAG: what CHANGELOG.md says of that version. Fails if the tag is not that of
// package.json, or if nothing is said. With --publish it becomes a GitHub release.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { root, version } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

/** The section of a version in the text of a changelog. */
export function releaseNotes(changelog, wanted) {
  const section = changelog.split(/^## /m).find((part) => /^\S+/.exec(part)[0] === wanted)
  const notes = section?.slice(section.indexOf("\n")).trim()
  if (!notes) throw new Error(`CHANGELOG.md says nothing under "## ${wanted}".`)
  return notes
}

if (import.meta.filename === process.argv[1]) {
  try {
    const { values, positionals } = parseArgs({ options: { publish: { type: "boolean" } }, allowPositionals: true })
    const [tag] = positionals
    if (tag !== `v${version()}`) throw new Error(`The tag must be v${version()}, as package.json says, got ${tag}.`)
    const notes = releaseNotes(readFileSync(join(root, "CHANGELOG.md"), "utf8"), version())
    console.log(notes)
    if (values.publish) await run("gh", ["release", "create", tag, "--title", tag, "--notes", notes])
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
