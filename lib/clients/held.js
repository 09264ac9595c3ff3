"use strict"

const { clearTimeout, setTimeout } = require("../timers.js")

/** Extra time for a backend that received a held request: its own error has more details than ours. */
const HANDOVER_MS = 200

/** Requests that wait until their backend is known, in the order in which they were made. */
class Held {
  /** The size of all held requests, in characters. */
  units = 0
  /** Requests that one backend has returned: they come before all others. */
  #returned = new Set()
  #waiting = new Set()
  #ended

  /** `ended` is called when no request is held. */
  constructor(ended) {
    this.#ended = ended
  }

  get count() {
    return this.#returned.size + this.#waiting.size
  }

  /** Holds `request` for at most `ms`; then it gets the error that `late(isSent)` makes. */
  add(request, units, ms, late) {
    this.#put(this.#waiting, request, units, ms, late)
  }

  /** The same for a request that was made before all held requests. */
  putBack(request, ms, late) {
    this.#put(this.#returned, request, 0, ms, late)
  }

  #put(among, request, units, ms, late) {
    const entry = { among, request, units, isSent: false, isSettled: false }
    const settle = request.settle.bind(request)
    const end = (error, reply) => {
      if (entry.isSettled) return
      entry.isSettled = true
      clearTimeout(timer)
      this.#remove(entry)
      settle(error, reply)
    }
    const expire = () => end(late(entry.isSent), null)
    let timer = setTimeout(() => {
      if (entry.isSent) timer = setTimeout(expire, HANDOVER_MS)
      else expire()
    }, ms)
    request.settle = end
    this.units += units
    among.add(entry)
  }

  #remove(entry) {
    if (!entry.among.delete(entry)) return
    this.units -= entry.units
    if (this.count === 0) this.#ended()
  }

  /** Removes all requests and calls `send(request)` for each. */
  release(send) {
    for (const entry of [...this.#returned, ...this.#waiting]) {
      this.#remove(entry)
      entry.isSent = true
      if (!entry.isSettled) send(entry.request)
    }
  }
}

module.exports = { Held }
