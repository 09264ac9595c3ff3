"use strict"

/** The requests of one connection that Redis has not answered, by the ids that both halves know them by. */
class Pending {
  count = 0
  /** What they amount to, in characters. */
  units = 0
  /** Those that are answered; from `next` on they are to be settled. */
  answered = []
  next = 0
  #requests = []
  #free = []

  /** The id of a request from now on. */
  open(request) {
    const id = this.#free.length > 0 ? this.#free.pop() : this.#requests.length
    this.#requests[id] = request
    this.count++
    return id
  }

  /** The request `id` is answered. */
  answer(id, error, reply) {
    const request = this.#requests[id]
    this.#requests[id] = undefined
    this.#free.push(id)
    this.count--
    this.units -= request.bytes
    request.error = error
    request.reply = reply
    this.answered.push(request)
  }

  /** Those that will never be answered. */
  abandoned() {
    return this.#requests.filter((request) => request !== undefined)
  }
}

module.exports = { Pending }
