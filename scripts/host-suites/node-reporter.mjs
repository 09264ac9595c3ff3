// Writes one line of JSON for every test of node:test to the file HOST_SUITE_RESULTS.
import { appendFileSync } from "node:fs"
import { basename } from "node:path"

export default async function* report(events) {
  const path = []
  for await (const { type, data } of events) {
    if (type === "test:start") path.splice(data.nesting, path.length, data.name)
    if ((type !== "test:pass" && type !== "test:fail") || data.skip !== undefined || data.todo !== undefined) continue
    const name = [basename(data.file ?? ""), ...path.slice(0, data.nesting), data.name].join(" › ")
    const passed = type === "test:pass"
    const error = data.details?.error?.cause ?? data.details?.error
    const line = { name, passed, ...(!passed && { error: String(error?.stack ?? error) }) }
    appendFileSync(process.env.HOST_SUITE_RESULTS, `${JSON.stringify(line)}\n`)
  }
  yield ""
}
