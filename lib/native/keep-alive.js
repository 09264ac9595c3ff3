"use strict"

const { clearInterval, setInterval } = require("../timers.js")

const LONG_MS = 2 ** 31 - 1

/**
 * What has pending requests. A timer, which lives no longer, keeps the process alive for them. Held, since a store
 * and its callers may refer to each other only: a garbage collection would take all of them before the answer.
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
