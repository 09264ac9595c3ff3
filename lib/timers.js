"use strict"

/**
 * Timers and clocks from the time when the package is loaded: fake timers, which tests install later, would
 * stop every deadline. Date is not among them: expiry follows the application's clock, fake or not.
 */
const { performance } = require("node:perf_hooks")
const { clearImmediate, clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } = require("node:timers")

const nextTick = process.nextTick.bind(process)
const now = performance.now.bind(performance)

let turn

/**
 * The time at which this function was first called since the queue of nextTick() last ran: before a long synchronous
 * task, for example. For what need not be exact, since reading the clock takes as long as a look-up.
 */
function turnTime() {
  if (turn === undefined) {
    turn = now()
    nextTick(endTurn)
  }
  return turn
}

function endTurn() {
  turn = undefined
}

/**
 * Returns `settle(error, value)`. Only its first call counts: it calls `done(error, value)`. After `ms`
 * milliseconds it is called with the error that `late()` creates.
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

/** The same for a promise: resolves to its value, or rejects with the error that `late()` creates. */
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
  clearTimeout,
  inTime,
  nextTick,
  nextTurn,
  now,
  setImmediate,
  setInterval,
  setTimeout,
  turnTime,
  withDeadline,
}
