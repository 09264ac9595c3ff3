import { appendFileSync } from "node:fs"
import { after, describe, test as nodeTest } from "node:test"

/** A row of one of the tables that `npm test` prints at its end. */
export function note(matrix, row) {
  const file = process.env.MATRICES
  if (file) appendFileSync(file, `${JSON.stringify({ matrix, ...row })}\n`)
}

/**
 * The tests of a neighbour, which `define` registers with the `test` that it receives: a row of the neighbours
 * matrix.
 */
export function neighbour(name, define) {
  describe(name, () => {
    let tests = 0
    let passed = 0
    after(() => note("neighbours", { name, passed, tests }))
    define((title, body) => {
      tests++
      nodeTest(title, async (t) => {
        await body(t)
        passed++
      })
    })
  })
}
