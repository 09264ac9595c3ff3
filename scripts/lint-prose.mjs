// Part of `npm run lint`: applies the rule of prose/ to every document, and prints its reports.
import { readFileSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"

import { TextlintKernel } from "@textlint/kernel"
import markdown from "@textlint/textlint-plugin-markdown"

import { root } from "../testing/project.mjs"

const rule = createRequire(import.meta.url)("./prose/plain-english.js")
const kernel = new TextlintKernel()

/** Every Markdown file that readers get. */
const DOCUMENTS = [
  ...["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"],
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
  ...readdirSync(join(root, "examples")).map((name) => `examples/${name}/README.md`),
]

/** The reports for a Markdown text: `{line, column, message}`. */
export async function lintProse(text) {
  const { messages } = await kernel.lintText(text, {
    filePath: "page.md",
    ext: ".md",
    plugins: [{ pluginId: "markdown", plugin: markdown.default ?? markdown }],
    rules: [{ ruleId: "plain-english", rule }],
  })
  return messages.map(({ message, loc: { start } }) => ({ line: start.line, column: start.column, message }))
}

/** The reports for every document, as lines of text. */
export async function lintDocuments() {
  const lines = []
  for (const name of DOCUMENTS) {
    for (const { line, column, message } of await lintProse(readFileSync(join(root, name), "utf8"))) {
      lines.push(`${name}:${line}:${column} ${message}`)
    }
  }
  return lines
}

if (import.meta.filename === process.argv[1]) {
  const lines = await lintDocuments()
  for (const line of lines) console.error(line)
  process.exitCode = lines.length > 0 ? 1 : 0
}
