"use strict"

/**
 * What a store has read: beside an object and not in it, as nothing of the application sees private
 * members. A WeakMap does the same at the price of half a JSON.parse for each session.
 */
class Mark extends class {
  constructor(data) {
    return data
  }
} {
  #by
  #key
  #at
  #read

  constructor(data, by, key, at, read) {
    super(data)
    this.#by = by
    this.#key = key
    this.#at = at
    this.#read = read
  }

  /** `at` is when it was asked for, by the clock of timers.js; `read` is its text and when it was created. */
  static put(data, by, key, at, read) {
    if (#by in data) {
      data.#by = by
      data.#key = key
      data.#at = at
      data.#read = read
      return data
    }
    try {
      return new Mark(data, by, key, at, read)
    } catch {
      // An engine may keep private members off objects that are not extensible.
      return unmarkable.set(data, { by, key, at, read })
    }
  }

  static of(data) {
    if (typeof data !== "object" || data === null) return undefined
    return #by in data ? { by: data.#by, key: data.#key, at: data.#at, read: data.#read } : unmarkable.get(data)
  }
}
const unmarkable = new WeakMap()

module.exports = { Mark }
