// The types in index.d.ts: by TypeScript 7 and 5.9, and against what the package exports.
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const CHECKS = [
  ["npx", "tsc", "-p", "__test__/types"],
  ["npx", "tsc", "-p", "__test__/types/augmented"],
  [process.execPath, "node_modules/typescript-5/bin/tsc", "-p", "__test__/types/no-interop"],
  [process.execPath, "scripts/check-exports.mjs"],
]

try {
  for (const [command, ...args] of CHECKS) await run(command, args, { cwd: root })
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
