"use strict"

/**
 * Calls that are pending together: all since the last round, until the first of them is answered. Methods with
 * a callback return the promise of their round, because a promise for each call costs a tenth of the
 * throughput.
 */
class Round {
  /** Resolves to undefined when all callbacks of the round were called. Undefined until `promised` makes it. */
  promise = undefined
  #left = 0
  #resolve

  promised() {
    this.promise = this.#left === 0 ? Promise.resolve() : new Promise((resolve) => (this.#resolve = resolve))
    return this.promise
  }

  enter() {
    this.#left++
    return this
  }

  /** The callback of one call of the round is about to be called. */
  leave() {
    if (--this.#left === 0) this.#resolve?.()
  }
}

let current

function currentRound() {
  current ??= new Round()
  return current
}

/** A call of `round` is answered. Later calls start a new round, so that they do not wait for this one. */
function endRound(round) {
  if (round === current) current = undefined
}

module.exports = { currentRound, endRound }
