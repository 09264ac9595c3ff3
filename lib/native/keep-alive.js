"use strict"

const { clearInterval, setInterval } = require("../timers.js")

const LONG_MS = 2 ** 31 - 1

/**
 * Backends with pending requests. They keep the process alive, by a timer that lives no longer; an idle store does
 * not. And they are kept themselves: where an application holds no more than the promise of a request, nothing else
 * does.
 */
const busy = new Set()
let timer

function keepAlive(backend) {
  if (busy.size === 0) timer = setInterval(() => {}, LONG_MS)
  busy.add(backend)
}

function letGo(backend) {
  busy.delete(backend)
  if (busy.size > 0) return
  clearInterval(timer)
  timer = undefined
}

module.exports = { keepAlive, letGo }
