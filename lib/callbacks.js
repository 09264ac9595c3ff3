"use strict"

const { callbackError } = require("./errors.js")
const { currentRound } = require("./round.js")
const { nextTick } = require("./timers.js")

/**
 * Calls `start(done, store, sid, more)` with the arguments of the method: a closure over them would be allocated
 * for each call. `done` calls the callback or, without one, settles the returned promise. With `quiet` an
 * unhandled rejection does not end the process, because connect-redis 3 to 6 returned no promise. With a
 * callback the promise resolves to undefined after the callback was called, whatever the outcome.
 */
function bridge(callback, quiet, start, store, sid, more) {
  // As in connect-redis, a callback may be false: `condition && callback`.
  if (!callback) {
    const promise = promised((done) => start(done, store, sid, more))
    if (quiet) promise.catch(() => {})
    return promise
  }
  if (typeof callback !== "function") throw callbackError(callback)
  const round = currentRound()
  start(callback, store, sid, more)
  return round.promise ?? round.promised()
}

/** The same for an async function. */
function bridgeAsync(callback, quiet, work) {
  const start = (done) => {
    // By nextTick: an error of the callback is an uncaught exception, not a rejection.
    work().then(
      (value) => nextTick(callBack, done, null, value),
      (error) => nextTick(callBack, done, error, null),
    )
  }
  if (typeof callback !== "function") return bridge(callback, quiet, start)
  return new Promise((resolve) => {
    start((error, value) => {
      resolve()
      callback(error, value)
    })
  })
}

/** A promise of the result that `start` passes to its callback. */
function promised(start) {
  return new Promise((resolve, reject) => {
    start((error, value) => (error === null ? resolve(value) : reject(error)))
  })
}

/**
 * Calls a callback. As in connect-redis, a callback that throws on success is called once more with its own
 * error: applications handle their own errors there.
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
