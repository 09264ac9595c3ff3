"use strict"

const { RedisStoreError } = require("../errors.js")
const { loadProtocol } = require("../native/protocol.js")
const { readKeys } = require("./keys.js")
const { Waiting } = require("./waiting.js")

/** Begins what is stored and is no text of a session itself: src/sealing/mod.rs. */
const MAGIC = "~1"
const TILDE = 126

/** How one store keeps its sessions: options encryption and compression. */
class Sealing {
  isOn
  /** Whether nothing needs to wait for keys. */
  isReady
  /** The native half; undefined until the keys are known, and where nothing is sealed. */
  native
  #settings
  #waiting
  #started
  /** For what others have sealed, where nothing is sealed here: `{native}`. */
  #opener

  /** Throws what is wrong with the options, and where there is no native binary. `keyPrefix()` is the client's own. */
  constructor({ encryption, compression, maxSessionBytes, ...limits }, keyPrefix) {
    this.isOn = encryption !== undefined || compression !== undefined
    this.isReady = !this.isOn
    this.#settings = { keys: [], plaintext: "accept", maxBytes: maxSessionBytes, keyPrefix: "" }
    if (!this.isOn) return
    Object.assign(this.#settings, {
      plaintext: encryption?.plaintext ?? "accept",
      compressedFrom: compression?.minBytes,
      keyPrefix: keyPrefix(),
    })
    // At the start, and not at the first request.
    loadProtocol()
    const keys = encryption?.keys
    if (keys === undefined || Array.isArray(keys)) this.#start(keys === undefined ? [] : readKeys(keys))
    else this.#waiting = new Waiting(keys, (given) => this.#start(readKeys(given)), limits)
  }

  #start(keys) {
    const { binding } = loadProtocol()
    this.native = new binding.Sealing({ ...this.#settings, keys })
    this.isReady = true
    this.#started?.()
  }

  /** Calls `started` once the native half is there, if it ever is. */
  whenStarted(started) {
    if (this.native === undefined) this.#started = started
    else started()
  }

  /**
   * Calls `run(done)`; once the keys are known, and in the order of the calls. `about` is what waits: the key that
   * it concerns, undefined for all keys, and the units of text that it holds.
   */
  when(done, run, about) {
    if (this.isReady) run(done)
    else this.#waiting.hold(done, run, about)
  }

  /** Whether a request that needs no keys has to wait all the same: another one about `key` does. */
  isHeld(key) {
    return !this.isReady && this.#waiting.has(key)
  }

  /** Asks for keys that are not known yet. */
  ask() {
    if (!this.isReady) this.#waiting.ask()
  }

  /** Resolves when nothing waits for keys. */
  async settled() {
    await this.#waiting.settled()
  }

  /** What is `stored` as it would be sealed now; null if it is so already. It is opened either way. */
  resealed(key, stored) {
    if (this.native === undefined && !isSealed(stored)) return null
    try {
      return (this.native ?? this.#openerOf().native).resealed(key, stored)
    } catch (error) {
      if (error.code === "ERR_REDIS_STORE_OPTIONS") return null
      throw new RedisStoreError("ERR_REDIS_STORE_DECODE", error.message)
    }
  }

  /** What is to be stored for the session `text`. */
  seal(key, text) {
    if (this.native === undefined) return text
    try {
      return this.native.seal(key, text)
    } catch (error) {
      throw new RedisStoreError("ERR_REDIS_STORE_ENCODE", error.message)
    }
  }

  /** The text of the session that is `stored`. */
  open(key, stored) {
    if (this.native === undefined && !isSealed(stored)) return stored
    try {
      return (this.native ?? this.#openerOf().native).open(key, stored)
    } catch (error) {
      if (error.code === "ERR_REDIS_STORE_OPTIONS") return stored
      throw new RedisStoreError("ERR_REDIS_STORE_DECODE", error.message)
    }
  }

  /** By what the native half opens and seals where it is to do both, as what others have sealed is read in any case. */
  forMerges() {
    return this.native === undefined ? this.#openerOf() : this
  }

  #openerOf() {
    const { binding } = loadProtocol()
    this.#opener ??= { native: new binding.Sealing(this.#settings) }
    return this.#opener
  }
}

function isSealed(stored) {
  return stored.charCodeAt(0) === TILDE && stored.startsWith(MAGIC)
}

module.exports = { Sealing }
