import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { test } from "node:test"

const require = createRequire(import.meta.url)
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8")
const types = readFileSync(new URL("../index.d.ts", import.meta.url), "utf8")
const { OPTIONS } = require("../lib/options.js")
const { errorCodes } = require("../binding.js")

const section = (title) => readme.split(`\n## ${title}\n`)[1].split("\n## ")[0]
const firstColumn = (text) => [...text.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name)

test("the README's table of errors is the native half's list of codes, and so are the types", () => {
  assert.deepEqual(firstColumn(section("Errors")), errorCodes())
  assert.deepEqual(
    [...types.matchAll(/\| "(ERR_\w+)"/g)].map(([, code]) => code),
    errorCodes(),
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
  const { KINDS } = require("../lib/adopt.js")
  const row = (name) => readme.split("\n").find((line) => line.startsWith(`| ${name} |`))
  for (const { kind, testedWith, advice } of KINDS) {
    if (advice !== undefined) continue
    for (const tested of testedWith) {
      const [name, version] = tested.split(" ")
      assert.match(row(name), new RegExp(`\\b${version.replace(".", "\\.")}\\b`), kind)
    }
  }
})
