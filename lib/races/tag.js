"use strict"

/** The property of a session that holds its tag. */
const TAG = "~loaded"

/**
 * What a store knows of a session that it has read, in a property of it: copies of the session have it too,
 * and JSON leaves it out.
 */
class Tag {
  #by
  #known

  constructor(by, known) {
    this.#by = by
    this.#known = known
  }

  /** Tags `data`, unless it takes no further property. */
  static put(data, by, known) {
    const value = new Tag(by, known)
    Reflect.defineProperty(data, TAG, { value, configurable: true, enumerable: true, writable: true })
  }

  /** What `by` knows of `session`, if that is tagged. */
  static of(session, by) {
    const tag = session[TAG]
    return typeof tag === "object" && tag !== null && #by in tag && tag.#by === by ? tag.#known : undefined
  }

  toJSON() {
    return undefined
  }
}

/** Whether JSON would write the tag of `session`: a structured clone of it has a plain, empty object there. */
function hasClonedTag(session) {
  const tag = session?.[TAG]
  return typeof tag === "object" && tag !== null && tag.toJSON === undefined && Object.keys(tag).length === 0
}

/** Calls `write(session)` while no tag is in `session`: serializers other than JSON would write it. */
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
