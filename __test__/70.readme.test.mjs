import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { test } from "node:test"

const require = createRequire(import.meta.url)
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8")
const types = readFileSync(new URL("../index.d.ts", import.meta.url), "utf8")
const { OPTIONS } = require("../lib/options/options.js")
const { errorCodes } = require("../lib/native/protocol.js").loadProtocol()

const section = (title) => readme.split(`\n## ${title}\n`)[1].split("\n## ")[0]
const firstColumn = (text) => [...text.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name)

test("the README's table of errors is the native half's list of codes, and so are the types", () => {
  assert.deepEqual(firstColumn(section("Errors")), errorCodes)
  assert.deepEqual(
    [...types.matchAll(/\| "(ERR_\w+)"/g)].map(([, code]) => code),
    errorCodes,
  )
})

test("the README's table of options names each, with its default, and so do the types", () => {
  const text = section("Options")
  assert.deepEqual(firstColumn(text), Object.keys(OPTIONS))
  for (const [name, { initial }] of Object.entries(OPTIONS)) {
    if (initial === undefined) continue
    const shown = initial === JSON ? "JSON" : JSON.stringify(initial)
    assert.match(text, new RegExp(`^\\| \`${name}\` \\|.*\\| \`${shown}\` \\|$`, "m"))
    assert.match(types, new RegExp(`@default ${shown}(?: |\\n)[^;]*?\\s${name}\\?:`))
  }
})

test("the README's table of clients names the versions that the tests use", () => {
  const { KINDS } = require("../lib/clients/adopt.js")
  const rows = readme.split("\n").filter((line) => line.startsWith("| "))
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
