"use strict"

const { callbackError } = require("./errors.js")
const { nextTick } = require("./timers.js")

/**
 * Calls `start(done)` with the callback or, if there is none, with that of the promise it returns. With
 * `quiet` an unhandled rejection does not end the process: connect-redis 3 to 6 returned none.
 */
function bridge(callback, quiet, start) {
  // As connect-redis: `condition && callback` may be false.
  if (!callback) {
    const promise = promised(start)
    if (quiet) promise.catch(() => {})
    return promise
  }
  if (typeof callback !== "function") throw callbackError(callback)
  start(callback)
}

/** The same for an async function. */
function bridgeAsync(callback, quiet, work) {
  return bridge(callback, quiet, (done) => {
    // By nextTick: what the callback throws is an uncaught exception, not a rejection.
    work().then(
      (value) => nextTick(callBack, done, null, value),
      (error) => nextTick(callBack, done, error, null),
    )
  })
}

/** A promise of what `start` calls back with. */
function promised(start) {
  return new Promise((resolve, reject) => {
    start((error, value) => (error === null ? resolve(value) : reject(error)))
  })
}

/**
 * Calls a callback, as connect-redis does: one that throws on success is called once more, with what it
 * threw. Applications handle there what they throw themselves.
 */
function callBack(callback, error, value) {
  if (error !== null) return callback(error, null)
  try {
    callback(null, value)
  } catch (thrown) {
    callback(thrown, null)
  }
}

module.exports = { bridge, bridgeAsync, callBack, promised }
