import assert from "node:assert/strict"
import { readFileSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { test } from "node:test"

const require = createRequire(import.meta.url)
const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8")
const types = read("index.d.ts")
const { OPTIONS } = require("../lib/options/options.js")
const { errorCodes } = require("../lib/native/protocol.js").loadProtocol()

const firstColumn = (text) => [...text.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name)

test("README has at most 150 lines, and an index of every page in docs/", () => {
  const readme = read("README.md")
  assert.ok(readme.trimEnd().split("\n").length <= 150)
  const pages = readdirSync(new URL("../docs", import.meta.url)).map((name) => `docs/${name}`)
  const index = readme.split("\n## Documentation\n")[1]
  assert.deepEqual(
    pages.filter((page) => !index.includes(`](${page})`)),
    [],
  )
})

for (const [language, file] of [
  ["js", "app.mjs"],
  ["js", "app.cjs"],
  ["ts", "app.mts"],
]) {
  test(`README and getting-started.md have the quick start of examples/quick-start/${file}`, () => {
    const block = `\n\`\`\`${language}\n${read(`examples/quick-start/${file}`)}\`\`\`\n`
    for (const page of ["README.md", "docs/getting-started.md"]) assert.ok(read(page).includes(block), page)
  })
}

test("every page begins with a paragraph that names its subject", () => {
  for (const name of readdirSync(new URL("../docs", import.meta.url))) {
    assert.match(read(`docs/${name}`), /^# [^\n]+\n\nThis page [^#]+\./, name)
  }
})

test("api.md has every method, field and event", () => {
  const page = read("docs/api.md")
  const { RedisStore } = require("../index.js")
  const own = Object.getOwnPropertyNames(RedisStore.prototype).filter((name) => name !== "constructor")
  for (const name of own) assert.match(page, new RegExp(`\`${name}(\\(|\`)`), name)
  const events = [...types.matchAll(/event: "(\w+)"|^ {4}(\w+): \[/gm)].map(([, one, other]) => one ?? other)
  assert.ok(events.length > 5)
  for (const event of events) assert.ok(page.includes(`\`${event}\``), event)
})

test("the table of errors.md is the list of codes in Rust, and so are the types", () => {
  assert.deepEqual(firstColumn(read("docs/errors.md")), errorCodes)
  assert.deepEqual(
    [...types.matchAll(/\| "(ERR_\w+)"/g)].map(([, code]) => code),
    errorCodes,
  )
})

test("the table of options.md names each option with its default, and so do the types", () => {
  const text = read("docs/options.md")
  assert.deepEqual(firstColumn(text), Object.keys(OPTIONS))
  for (const [name, { initial }] of Object.entries(OPTIONS)) {
    if (initial === undefined) continue
    const shown = initial === JSON ? "JSON" : JSON.stringify(initial)
    assert.match(text, new RegExp(`^\\| \`${name}\` \\|.*\\| \`${shown}\` \\|$`, "m"))
    assert.match(types, new RegExp(`@default ${shown}(?: |\\n)[^;]*?\\s${name}\\?:`))
  }
})

test("the table of clients.md names the versions that the tests use", () => {
  const { KINDS } = require("../lib/clients/adopt.js")
  const rows = read("docs/clients.md")
    .split("\n")
    .filter((line) => line.startsWith("| "))
  for (const { kind, testedWith } of KINDS) {
    for (const tested of testedWith) {
      const [name, version] = tested.split(" ")
      const row = new RegExp(`^\\| ${name}\\b.*\\b${version.replace(".", "\\.")}\\b`)
      assert.ok(
        rows.some((line) => row.test(line)),
        `${kind}: ${tested}`,
      )
    }
  }
})

test("the versions that adoption was tested with are those installed", () => {
  const { KINDS } = require("../lib/clients/adopt.js")
  const installed = Object.entries(require("../package-lock.json").packages).map(([path, { name, version }]) => {
    return `${name ?? path.slice("node_modules/".length)} ${version.split(".").slice(0, 2).join(".")}`
  })
  for (const { testedWith } of KINDS) {
    for (const tested of testedWith) assert.ok(installed.includes(tested), tested)
  }
})
