// A reporter of node:test: a line of JSON for each test, and for each suite that is skipped.
import { inspect } from "node:util"

export default async function* reporter(source) {
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue
    const { name, skip, details } = data
    if (type === "test:pass" && details.type === "suite" && skip === undefined) continue
    const { error } = details
    // A suite fails with each of its tests, which were reported before.
    if (error?.failureType === "subtestsFailed") continue
    const outcome = error !== undefined ? "failed" : skip !== undefined ? "skipped" : "passed"
    const why = error === undefined ? skip : inspect(error.cause ?? error)
    yield `${JSON.stringify({ name, outcome, why })}\n`
  }
}
