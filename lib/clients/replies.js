"use strict"

const { RedisStoreError } = require("../errors.js")

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** The text of a value. Some clients return bytes, others parse text that looks like JSON. */
function textOf(reply) {
  if (reply == null || typeof reply === "string") return reply ?? null
  return reply instanceof Uint8Array ? decoder.decode(reply) : JSON.stringify(reply)
}

/** `[cursor, keys]` of SCAN. The cursor of valkey-glide's cluster client is an object. */
function scanned(reply) {
  const [cursor, keys] = Array.isArray(reply) ? reply : [reply.cursor, reply.keys]
  const isObject = typeof cursor === "object" && !(cursor instanceof Uint8Array)
  return [isObject ? cursor : (textOf(cursor) ?? "0"), keys.map(textOf)]
}

/** The reply of the script of markers. */
function restored(reply) {
  if (Array.isArray(reply)) return reply.map(Number)
  return reply === null ? null : true
}

/** The same for a write that does not replace a value. */
function added(reply) {
  const outcome = restored(reply)
  if (outcome !== true) return outcome
  const text = textOf(reply)
  return text === "OK" ? true : text
}

/** Null if there was no value to replace; some mocks return 0 or false instead. */
function isReplaced(reply) {
  return reply === null || reply === 0 || reply === false ? null : true
}

function serverError(error) {
  if (error instanceof RedisStoreError) return error
  return new RedisStoreError("ERR_REDIS_STORE_SERVER", "The client reported an error; see its cause.", coded(error))
}

/** valkey-glide's words for Redis's. */
const GLIDE_WORDS = {
  BusyLoadingError: "LOADING",
  CrossSlot: "CROSSSLOT",
  PermissionDenied: "NOPERM",
  ReadOnly: "READONLY",
  ResponseError: "ERR",
}

/** An error whose `code` is the first word of its message, such as OOM: not all clients set it. */
function coded(error) {
  const [first] = /^[A-Z][A-Z0-9]+(?=:? )/.exec(error?.message) ?? []
  const word = first ?? GLIDE_WORDS[/^An error was signalled by the server: - (\w+):/.exec(error?.message)?.[1]]
  if (word === undefined || error.code !== undefined || !Object.isExtensible(error)) return error
  return Object.defineProperty(error, "code", { value: word, configurable: true, enumerable: true, writable: true })
}

module.exports = { added, isReplaced, restored, scanned, serverError, textOf }
