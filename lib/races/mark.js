"use strict"

/** The constructor returns its argument, so that a subclass adds its private members to that object. */
class Carrier {
  constructor(data) {
    return data
  }
}

const NONE = {}

/**
 * Creates the marks of one store on the objects that it has read: the key, the text if it is needed, and the
 * time of the request by the clock of timers.js. Marks are private members, which the application cannot see. A
 * WeakMap would do the same, but cost half a JSON.parse for each session.
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
        // The object is marked already, or not extensible: engines may reject private members on such objects.
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
