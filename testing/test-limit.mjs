// Preloaded into each test file: ends it, by name, when one test takes longer than TEST_LIMIT_SECONDS, or when it goes on
// for so long behind its last test. node:test's own option counts for the file as a whole.
import { afterEach, beforeEach } from "node:test"

const seconds = Number(process.env.TEST_LIMIT_SECONDS)
/** Taken at load: tests replace timers. */
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
  if (timers.size === 0) idle = endLater(`Something was left open: the file goes on ${seconds} s after "${test.name}".`)
})

function endLater(message) {
  const end = () => {
    console.error(message)
    process.exit(1)
  }
  return setTimeout(end, seconds * 1000).unref()
}
