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

  /** Throws what is wrong with the options, and where there is no native binary. `keyPrefix()` is the client's own. */
  constructor({ encryption, compression, commandTimeoutMs, maxPending }, keyPrefix) {
    this.isOn = encryption !== undefined || compression !== undefined
    this.isReady = !this.isOn
    if (!this.isOn) return
    this.#settings = {
      keys: [],
      plaintext: encryption?.plaintext ?? "accept",
      compressedFrom: compression?.minBytes,
      keyPrefix: keyPrefix(),
    }
    // At the start, and not at the first request.
    loadProtocol()
    const keys = encryption?.keys
    if (keys === undefined || Array.isArray(keys)) this.#start(keys === undefined ? [] : readKeys(keys))
    else this.#waiting = new Waiting(keys, (given) => this.#start(readKeys(given)), { commandTimeoutMs, maxPending })
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

  /** Calls `run(done)`; once the keys are known, and in the order of the calls. */
  when(done, run) {
    if (this.isReady) run(done)
    else this.#waiting.hold(done, run)
  }

  /** Asks for keys that are not known yet. */
  ask() {
    if (!this.isReady) this.#waiting.ask()
  }

  /** Resolves when nothing waits for keys. */
  async settled() {
    await this.#waiting.settled()
  }

  /** Whether what is `stored` is as it would be sealed now. */
  isCurrent(stored) {
    return this.native === undefined ? !stored.startsWith(MAGIC) : this.native.isCurrent(stored)
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
    if (this.native === undefined && (stored.charCodeAt(0) !== TILDE || !stored.startsWith(MAGIC))) return stored
    try {
      return (this.native ?? opener()).open(key, stored)
    } catch (error) {
      if (error.code === "ERR_REDIS_STORE_OPTIONS") return stored
      throw new RedisStoreError("ERR_REDIS_STORE_DECODE", error.message)
    }
  }
}

let plain

/** For stores that seal nothing: what others have compressed is read all the same. */
function opener() {
  const { binding } = loadProtocol()
  plain ??= new binding.Sealing({ keys: [], plaintext: "accept", keyPrefix: "" })
  return plain
}

module.exports = { Sealing }
