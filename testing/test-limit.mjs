// Preloaded into each test file: ends the file, with the name of the test, if a test takes longer than
// TEST_LIMIT_SECONDS, or if the process runs for that long after its last test. node:test's own option applies
// to the whole file.
import { afterEach, beforeEach } from "node:test"

const seconds = Number(process.env.TEST_LIMIT_SECONDS)
/** Saved at load, because tests replace timers. */
const { setTimeout, clearTimeout } = globalThis
const timers = new Map()
let idle

beforeEach((test) => {
  clearTimeout(idle)
  timers.set(test, endLater(`"${test.name}" took longer than ${seconds} s.`))
})

afterEach((test) => {
  clearTimeout(timers.get(test))
  timers.delete(test)
  clearTimeout(idle)
  if (timers.size === 0)
    idle = endLater(`A handle was left open: the process still runs ${seconds} s after "${test.name}".`)
})

function endLater(message) {
  const end = () => {
    console.error(message)
    process.exit(1)
  }
  return setTimeout(end, seconds * 1000).unref()
}
