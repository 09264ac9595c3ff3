// The prose linter reports its patterns, and no document has any.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { test } from "node:test"

import { lintDocuments, lintProse } from "../scripts/lint-prose.mjs"

const { PATTERNS } = createRequire(import.meta.url)("../scripts/prose/patterns.js")

for (const { bad, good, advice } of PATTERNS) {
  test(`reported: ${bad}`, async () => {
    for (const text of [bad, `# Page\n\n- ${bad}\n`, `| a |\n|---|\n| ${bad} |\n`]) {
      const [{ message }, ...others] = await lintProse(text)
      assert.ok(message.endsWith(`: ${advice}.`), message)
      assert.deepEqual(others, [])
    }
    assert.deepEqual(await lintProse(good), [])
  })
}

test("a report has the line and the column", async () => {
  const [{ line, column }] = await lintProse("A page.\n\nIt is read by\nnobody here.\n")
  assert.deepEqual({ line, column }, { line: 4, column: 1 })
})

test("code, link targets and wrapped lines are not reported", async () => {
  const text = "The option `nobody` of [a page](of-which.md) where there\nis no\nsuch option.\n"
  assert.deepEqual(await lintProse(text), [])
  assert.deepEqual(await lintProse("```js\nnobody()\n```\n"), [])
})

test("no document has any of these patterns", async () => {
  assert.deepEqual(await lintDocuments(), [])
})
