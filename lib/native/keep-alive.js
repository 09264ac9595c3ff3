"use strict"

const { clearInterval, setInterval } = require("../timers.js")

const LONG_MS = 2 ** 31 - 1

/** Stores with pending requests. They keep the process alive, by a timer that lives no longer; an idle store does not. */
let busy = 0
let timer

function keepAlive() {
  if (busy++ === 0) timer = setInterval(() => {}, LONG_MS)
}

function letGo() {
  if (--busy > 0) return
  clearInterval(timer)
  timer = undefined
}

module.exports = { keepAlive, letGo }
