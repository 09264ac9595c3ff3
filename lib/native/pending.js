"use strict"

/** The unanswered requests of one connection, by the ids that JavaScript and Rust share. */
class Pending {
  count = 0
  /** Their total size in characters. */
  units = 0
  /** The answered requests that are not settled yet are those from `#next` to `#end`. One array for all turns. */
  #answered = []
  #next = 0
  #end = 0
  #requests = []
  #free = []

  /** Registers a request and returns its id. */
  open(request) {
    const id = this.#free.length > 0 ? this.#free.pop() : this.#requests.length
    this.#requests[id] = request
    this.count++
    return id
  }

  /** Records the answer to the request `id`. */
  answer(id, error, reply) {
    const request = this.#requests[id]
    this.#requests[id] = undefined
    this.#free.push(id)
    this.count--
    this.units -= request.bytes
    request.error = error
    request.reply = reply
    this.#answered[this.#end++] = request
  }

  get hasAnswered() {
    return this.#next < this.#end
  }

  /** Removes and returns the answered request that comes first. */
  takeAnswered() {
    const request = this.#answered[this.#next]
    this.#answered[this.#next++] = undefined
    if (this.#next === this.#end) {
      this.#next = 0
      this.#end = 0
    }
    return request
  }

  /** Removes and returns the requests that will never be answered. */
  abandoned() {
    return this.#requests.filter((request) => request !== undefined)
  }
}

module.exports = { Pending }
