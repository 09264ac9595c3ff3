"use strict"

/** Its constructor returns the object it was given, so that private members of a subclass stand on that. */
class Carrier {
  constructor(data) {
    return data
  }
}

const NONE = {}

/**
 * Makes what one store knows of objects that it has read: their key or, where the text matters, also that;
 * and when they were asked for, by the clock of timers.js. It stands beside an object and not in it, as
 * the application cannot see private members. A WeakMap does the same at the price of half a JSON.parse
 * for each session.
 */
function createMarks() {
  const unmarkable = new WeakMap()
  return class Mark extends Carrier {
    #mark
    #at

    constructor(data, mark, at) {
      super(data)
      this.#mark = mark
      this.#at = at
    }

    static put(data, mark, at) {
      try {
        return new Mark(data, mark, at)
      } catch {
        // Marked already, or not extensible: an engine may keep private members off such an object.
        if (!(#mark in data)) return unmarkable.set(data, { mark, at })
        data.#mark = mark
        data.#at = at
      }
    }

    static of(data) {
      if (typeof data !== "object" || data === null) return NONE
      return #mark in data ? { mark: data.#mark, at: data.#at } : (unmarkable.get(data) ?? NONE)
    }
  }
}

module.exports = { createMarks }
