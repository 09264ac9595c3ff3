// `npm run test:targets`: builds, checks and smoke-tests every target as far as this system can, and prints a table.
// Arguments select targets by words in their names. A cell that is not "yes" has its reason below the table.
import { buildTarget } from "./build-target.mjs"
import { Missing } from "./cross-tools.mjs"
import { prepare } from "./prepare.mjs"
import { smokeTarget, withTarballs } from "./smoke-target.mjs"
import { findTarget, TARGETS } from "./targets.mjs"

const COLUMNS = ["target", "built for", "needs", "smoke test", "seconds"]

/** One row. A step that is not possible here is listed with its reason; a step that fails ends the row. */
async function testTarget(target) {
  const row = { target: target.name, "built for": "", needs: "", "smoke test": "" }
  const reasons = []
  const start = performance.now()
  const step = async (column, act) => {
    console.error(`${target.name}: ${column}...`)
    try {
      row[column] = await act()
      return true
    } catch (error) {
      row[column] = error instanceof Missing ? "skipped" : "FAILED"
      reasons.push(`${target.name}, ${column}: ${error.message}`)
      return false
    }
  }
  let built
  await step("built for", async () => {
    built = await buildTarget(target)
    return built.folder ? built.triple : `${built.triple} (cargo check)`
  })
  row.needs = built?.facts ?? ""
  if (built?.folder) {
    await step("smoke test", () =>
      withTarballs(target, built.folder, async (release) => {
        const { by, lines } = await smokeTarget(target, release)
        return `${lines.filter((line) => line.startsWith("ok: ")).length} checks by ${by}`
      }),
    )
  }
  row.seconds = ((performance.now() - start) / 1000).toFixed(0)
  return { row, reasons }
}

function print(rows, reasons) {
  const header = Object.fromEntries(COLUMNS.map((column) => [column, column]))
  const width = (column) => Math.max(...[header, ...rows].map((row) => row[column].length))
  for (const row of [header, ...rows]) {
    console.log(
      COLUMNS.map((column) => row[column].padEnd(width(column)))
        .join("  ")
        .trimEnd(),
    )
  }
  for (const reason of reasons) console.log(reason)
}

try {
  const words = process.argv.slice(2)
  const chosen = words.length > 0 ? words.map(findTarget) : TARGETS
  await prepare()
  const rows = []
  const reasons = []
  for (const target of chosen) {
    const result = await testTarget(target)
    rows.push(result.row)
    reasons.push(...result.reasons)
  }
  print(rows, reasons)
  if (rows.some((row) => Object.values(row).includes("FAILED"))) process.exitCode = 1
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
