"use strict"

/**
 * Timers and clocks as they are when the package is loaded: fake timers, which tests install later, would
 * stop every deadline. Not Date: expiry follows the application's clock, fake or not.
 */
const { performance } = require("node:perf_hooks")
const { clearImmediate, clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } = require("node:timers")

const nextTick = process.nextTick.bind(process)
const now = performance.now.bind(performance)

/**
 * Returns `settle(error, value)`. Only its first call counts: it calls `done(error, value)`. After `ms`
 * milliseconds that is called with the error that `late()` makes.
 */
function withDeadline(ms, late, done) {
  let timer = setTimeout(() => settle(late(), null), Math.max(ms, 0))
  function settle(error, value) {
    if (timer === undefined) return
    clearTimeout(timer)
    timer = undefined
    done(error, value)
  }
  return settle
}

/** The same for a promise: of its value, or of the error that `late()` makes. */
function inTime(promise, ms, late) {
  return new Promise((resolve, reject) => {
    const settle = withDeadline(ms, late, (error, value) => (error === null ? resolve(value) : reject(error)))
    promise.then(
      (value) => settle(null, value),
      (error) => settle(error ?? new Error("The promise was rejected without a reason."), null),
    )
  })
}

/** The next turn of the event loop. */
function nextTurn() {
  return new Promise((resolve) => setImmediate(resolve))
}

module.exports = {
  clearImmediate,
  clearInterval,
  inTime,
  nextTick,
  nextTurn,
  now,
  setImmediate,
  setInterval,
  setTimeout,
  withDeadline,
}
