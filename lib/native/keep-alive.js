"use strict"

const { clearInterval, setInterval } = require("../timers.js")

const LONG_MS = 2 ** 31 - 1

/**
 * The backends with pending requests. A timer keeps the process alive while there are any. Strong references,
 * because a store and its callers may refer only to each other: a garbage collection would remove them before
 * the answer.
 */
const busy = new Set()
let timer

function keepAlive(owner) {
  busy.add(owner)
  timer ??= setInterval(() => {}, LONG_MS)
}

function letGo(owner) {
  busy.delete(owner)
  if (busy.size > 0) return
  clearInterval(timer)
  timer = undefined
}

module.exports = { keepAlive, letGo }
