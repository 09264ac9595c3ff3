"use strict"

/** The constructor returns its argument, so that a subclass adds its private members to that object. */
class Carrier {
  constructor(data) {
    return data
  }
}

/**
 * Creates the marks of one store on the objects that it has read: how it has read them. Marks are private members,
 * which the application cannot see. A WeakMap would do the same, but cost half a JSON.parse for each session.
 */
function createMarks() {
  const unmarkable = new WeakMap()
  return class Mark extends Carrier {
    #mark

    constructor(data, mark) {
      super(data)
      this.#mark = mark
    }

    static put(data, mark) {
      try {
        return new Mark(data, mark)
      } catch {
        // The object is marked already, or not extensible: engines may reject private members on such objects.
        if (!(#mark in data)) return unmarkable.set(data, mark)
        data.#mark = mark
      }
    }

    static of(data) {
      if (typeof data !== "object" || data === null) return undefined
      return #mark in data ? data.#mark : unmarkable.get(data)
    }
  }
}

module.exports = { createMarks }
