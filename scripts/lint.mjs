// `npm run lint`: formatters, linters and types. Changes nothing.
import { prepare, root } from "./prepare.mjs"
import { run } from "./run.mjs"

const CHECKS = [
  ["cargo", "fmt", "--check"],
  ["cargo", "clippy", "--quiet", "--all-targets", "--", "-D", "warnings"],
  ["npx", "oxfmt", "--check"],
  ["npx", "oxlint", "--deny-warnings"],
  ["node", "scripts/check-exports.mjs"],
  ["node", "scripts/check-types.mjs"],
  ["node", "scripts/lint-workflows.mjs"],
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
