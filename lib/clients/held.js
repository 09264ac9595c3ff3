"use strict"

const { clearTimeout, setTimeout } = require("../timers.js")

/** So long a side that was handed a request may be late with its own error, which says more than ours. */
const HANDOVER_MS = 200

/** Requests that wait until it is known where they go, in the order in which they were asked. */
class Held {
  /** What they amount to, in characters. */
  units = 0
  #requests = []
  /** Those at the front, which one side has given back. */
  #returned = 0

  get count() {
    return this.#requests.length
  }

  /** Holds `request`, which `send(to)` asks, for at most `ms`; then it gets the error that `late(isSent)` makes. */
  add(request, send, units, ms, late) {
    this.units += units
    this.#requests.push({ send, units, state: this.#limit(request, ms, late) })
  }

  /** The same for a request that came before all that are held. */
  putBack(request, send, ms, late) {
    this.#requests.splice(this.#returned++, 0, { send, units: 0, state: this.#limit(request, ms, late) })
  }

  #limit(request, ms, late) {
    const settle = request.settle.bind(request)
    const state = { isSent: false, isSettled: false }
    const end = (error, reply) => {
      if (state.isSettled) return
      state.isSettled = true
      clearTimeout(timer)
      settle(error, reply)
    }
    const expire = () => end(late(state.isSent), null)
    let timer = setTimeout(() => {
      if (state.isSent) timer = setTimeout(expire, HANDOVER_MS)
      else expire()
    }, ms)
    request.settle = end
    return state
  }

  /** Sends those that are not settled to `to`. */
  release(to) {
    const requests = this.#requests.splice(0)
    this.units = 0
    this.#returned = 0
    for (const { send, state } of requests) {
      if (state.isSettled) continue
      state.isSent = true
      send(to)
    }
  }
}

module.exports = { Held }
