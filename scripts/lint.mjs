// `npm run lint`: formatters, linters, prose and types. Changes nothing.
import { root } from "../testing/project.mjs"
import { prepare } from "./prepare.mjs"
import { run } from "../testing/run.mjs"

const CHECKS = [
  ["cargo", "fmt", "--check"],
  ["cargo", "clippy", "--quiet", "--all-targets", "--", "-D", "warnings"],
  ["npx", "oxfmt", "--check"],
  ["npx", "oxlint", "--deny-warnings"],
  ["node", "scripts/lint-prose.mjs"],
  ["node", "scripts/check-types.mjs"],
  ["node", "scripts/lint-workflows.mjs"],
  ["node", "scripts/deny.mjs"],
]

try {
  await prepare()
  for (const [command, ...args] of CHECKS) {
    console.error([command, ...args].join(" "))
    await run(command, args, { cwd: root })
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
