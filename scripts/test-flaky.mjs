// `npm run test:flaky`: test:all three times in a row while two other processes keep every core busy. A test
// that passes alone and fails here depends on timing.
import { spawn } from "node:child_process"
import { parseArgs } from "node:util"

import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const { values } = parseArgs({
  options: { times: { type: "string", default: "3" }, busy: { type: "string", default: "2" } },
})
const [times, busy] = [Number(values.times), Number(values.busy)]

// Each ends with its parent, whose end closes the channel.
const BUSY = "process.on('disconnect', () => process.exit()); setInterval(() => { for (let i = 0; i < 1e8; i++); }, 0)"
const others = Array.from({ length: busy }, () =>
  spawn(process.execPath, ["--eval", BUSY], { stdio: ["ignore", "ignore", "inherit", "ipc"] }),
)
let failures = 0
for (let time = 1; time <= times; time++) {
  console.log(`\nRun ${time} of ${times}, beside ${busy} busy processes`)
  await run(process.execPath, ["scripts/test.mjs", "--all"], { cwd: root }).catch((error) => {
    console.error(error.message)
    failures++
  })
}
for (const other of others) other.disconnect()
console.log(`\n${times - failures} of ${times} runs were green.`)
if (failures > 0) process.exitCode = 1
