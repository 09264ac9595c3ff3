"use strict"

const { optionError } = require("../errors.js")
const { FOR_EVER } = require("../options/ttl.js")

/** The property of a stored session with its creation time. It is hidden from the application. */
const CREATED = "~created"

/** The option maxLifetime of a store: the limit for the life of a session since its creation. */
class Lifetime {
  #store
  #ms
  #jsonSerializers = new WeakSet([JSON])

  constructor(store, seconds) {
    this.#store = store
    this.#ms = seconds === undefined ? undefined : seconds * 1000
  }

  get isLimited() {
    return this.#ms !== undefined
  }

  /** Removes the creation time from `data` and returns it in milliseconds, if it is known and needed. */
  take(data) {
    if (this.#ms === undefined || !Object.hasOwn(data, CREATED)) return undefined
    const created = data[CREATED]
    delete data[CREATED]
    return Number.isFinite(created) ? created : undefined
  }

  /** The creation time in the stored `text` (or null) of a session, if it has one. */
  createdOf(text) {
    if (text === null || !text.includes(CREATED)) return undefined
    try {
      return this.take(JSON.parse(text))
    } catch {
      return undefined
    }
  }

  hasEnded(created) {
    return created !== undefined && Date.now() >= created + this.#ms
  }

  /** Limits `ttl` to the rest of the lifetime of a session with this creation time. */
  bound(ttl, created = Date.now()) {
    if (this.#ms === undefined) return ttl
    const left = Math.ceil(created + this.#ms - Date.now())
    return ttl === FOR_EVER ? Math.max(left, 0) : Math.min(ttl, left)
  }

  /** `text` with the creation time, if the option is set. */
  stamped(text, created) {
    if (this.#ms === undefined) return text
    this.demandJson("maxLifetime", text)
    const rest = text.slice(text.indexOf("{") + 1).trimStart()
    return `{"${CREATED}":${created}${rest[0] === "}" ? "" : ","}${rest}`
  }

  /** Checks the output of a serializer other than JSON, once. */
  demandJson(option, text) {
    const { serializer } = this.#store
    if (this.#jsonSerializers.has(serializer)) return
    if (!isJsonObject(text)) {
      throw optionError(
        `Option "${option}" needs a serializer that writes JSON objects; set another serializer, or leave the option out.`,
      )
    }
    this.#jsonSerializers.add(serializer)
  }
}

function isJsonObject(text) {
  try {
    const value = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

module.exports = { Lifetime }
