"use strict"

/** The property of a session that holds its tag. */
const TAG = "~loaded"

/**
 * The state of a loaded session as one of its properties: copies of the session keep it, and JSON leaves it
 * out.
 */
class Tag {
  #by
  #known

  constructor(by, known) {
    this.#by = by
    this.#known = known
  }

  /** Tags `data`, unless it is not extensible. */
  static put(data, by, known) {
    const value = new Tag(by, known)
    Reflect.defineProperty(data, TAG, { value, configurable: true, enumerable: true, writable: true })
  }

  /** The state that `by` has stored in `session`, if it is tagged. */
  static of(session, by) {
    const tag = session[TAG]
    return typeof tag === "object" && tag !== null && #by in tag && tag.#by === by ? tag.#known : undefined
  }

  toJSON() {
    return undefined
  }
}

/** Whether JSON would write the tag of `session`: in a structured clone the tag is a plain, empty object. */
function hasClonedTag(session) {
  const tag = session?.[TAG]
  return typeof tag === "object" && tag !== null && tag.toJSON === undefined && Object.keys(tag).length === 0
}

/** Calls `write(session)` with the tag removed, because serializers other than JSON would write it. */
function untagged(session, write) {
  if (typeof session !== "object" || session === null || !Object.hasOwn(session, TAG)) return write(session)
  const tag = session[TAG]
  if (!Reflect.deleteProperty(session, TAG)) return write(session)
  try {
    return write(session)
  } finally {
    session[TAG] = tag
  }
}

module.exports = { Tag, hasClonedTag, untagged }
