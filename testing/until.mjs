import { setTimeout as delay } from "node:timers/promises"

/** Waits until `check` returns a truthy value, and returns it. */
export async function until(what, check, ms = 10_000) {
  const deadline = Date.now() + ms
  for (;;) {
    const result = await check()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`)
    await delay(5)
  }
}

/** A promise of a callback's arguments. */
export function called(start) {
  return new Promise((resolve) => start((...values) => resolve(values)))
}
