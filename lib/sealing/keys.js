"use strict"

const { types } = require("node:util")

const { kindOf, optionError } = require("../errors.js")

const KEY_BYTES = 32
/** What a key may be called in stored values and in messages. */
const ID = /^[A-Za-z0-9_-]{1,32}$/
const BASE64 = /^[A-Za-z0-9+/_-]+={0,2}$/

/** The keys of the option encryption, each as `{id, key}` with 32 bytes. No message says anything of a key itself. */
function readKeys(given) {
  if (!Array.isArray(given) || given.length === 0) {
    throw optionError(`Option "encryption.keys" must be a list of {id, key}, got ${listOf(given)}.`)
  }
  const keys = given.map(readKey)
  const ids = keys.map(({ id }) => id)
  const twice = ids.find((id, at) => ids.indexOf(id) !== at)
  if (twice !== undefined) {
    throw optionError(`Option "encryption.keys" must have each id once, got "${twice}" twice.`)
  }
  return keys
}

function listOf(given) {
  return Array.isArray(given) ? "an empty list" : kindOf(given)
}

function readKey(given, at) {
  const own = (name) => (given !== null && typeof given === "object" ? given[name] : undefined)
  const id = own("id")
  if (typeof id !== "string" || !ID.test(id)) {
    throw optionError(
      `Option "encryption.keys[${at}].id" must be 1 to 32 letters, digits, "-" and "_", got ${typeof id === "string" ? "other text" : kindOf(id)}.`,
    )
  }
  const key = bytesOf(own("key"))
  if (key?.length !== KEY_BYTES) {
    const got = key === undefined ? kindOf(own("key")) : `${key.length} bytes`
    throw optionError(
      `Option "encryption.keys[${at}].key" must be ${KEY_BYTES} random bytes, as a Buffer, a secret KeyObject or base64, got ${got}; make one with: npx connect-redis-native keygen.`,
    )
  }
  return { id, key }
}

/** Undefined for what is no bytes at all. */
function bytesOf(key) {
  // By util.types: those of another realm are instances of another class.
  if (types.isUint8Array(key)) return Uint8Array.from(key)
  if (types.isAnyArrayBuffer(key)) return Uint8Array.from(new Uint8Array(key))
  if (types.isKeyObject(key)) return key.type === "secret" ? Uint8Array.from(key.export()) : undefined
  // A file ends with a new line.
  const text = typeof key === "string" ? key.trim() : ""
  return BASE64.test(text) ? Uint8Array.from(Buffer.from(text, "base64")) : undefined
}

module.exports = { KEY_BYTES, readKeys }
