"use strict"

const { AsyncResource } = require("node:async_hooks")

const { clearInterval, setInterval } = require("../timers.js")

const IDLE_MS = 1000

/**
 * The backends with pending requests. A timer keeps the process alive while there are any. Strong references,
 * because a store and its callers may refer only to each other: a garbage collection would remove them before
 * the answer.
 */
const busy = new Set()
/** Kept for a while after the last request, because creating one for each request costs CPU time. */
let timer

// Outside the first caller's AsyncLocalStorage context, which the timer would keep.
const start = AsyncResource.bind(() => setInterval(stopIfIdle, IDLE_MS))

function keepAlive(owner) {
  busy.add(owner)
  if (timer === undefined) timer = start()
  else if (busy.size === 1) timer.ref()
}

function letGo(owner) {
  busy.delete(owner)
  if (busy.size === 0) timer?.unref()
}

// A running timer keeps this copy of the package in memory, and test runners load one for each file of tests.
function stopIfIdle() {
  if (busy.size > 0) return
  clearInterval(timer)
  timer = undefined
}

module.exports = { keepAlive, letGo }
