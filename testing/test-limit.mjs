// Preloaded into each test file: ends it, by name, when one test takes longer than TEST_LIMIT_SECONDS. node:test's own
// option counts for the file as a whole.
import { afterEach, beforeEach } from "node:test"

const seconds = Number(process.env.TEST_LIMIT_SECONDS)
/** Taken at load: tests replace timers. */
const { setTimeout, clearTimeout } = globalThis
const timers = new Map()

beforeEach((test) => {
  const end = () => {
    console.error(`"${test.name}" took longer than ${seconds} s.`)
    process.exit(1)
  }
  timers.set(test, setTimeout(end, seconds * 1000).unref())
})

afterEach((test) => {
  clearTimeout(timers.get(test))
  timers.delete(test)
})
