// A reporter of node:test: appends a line of JSON to the file TEST_REPORT for each test, and for each suite that is
// skipped. Without node's option for a destination: any child process that inherits it would truncate the file.
import { appendFileSync } from "node:fs"
import { inspect } from "node:util"

// eslint-disable-next-line require-yield -- a reporter is a generator; there is nothing to print
export default async function* reporter(source) {
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue
    const { name, skip, details } = data
    if (type === "test:pass" && details.type === "suite" && skip === undefined) continue
    const { error } = details
    // A suite fails together with its tests, which were reported before.
    if (error?.failureType === "subtestsFailed") continue
    const outcome = error !== undefined ? "failed" : skip !== undefined ? "skipped" : "passed"
    const why = error === undefined ? skip : inspect(error.cause ?? error)
    appendFileSync(process.env.TEST_REPORT, `${JSON.stringify({ name, outcome, why })}\n`)
  }
}
