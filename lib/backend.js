"use strict"

const { recognise } = require("./clients/adopt.js")
const { SafetyNet } = require("./clients/safety-net.js")
const { Delegate } = require("./clients/delegate.js")
const { hasPttl } = require("./clients/dialects.js")
const { optionError } = require("./errors.js")
const { NativeBackend } = require("./native/backend.js")
const { readSettings } = require("./options/settings.js")
const { Migration } = require("./sealing/migration.js")
const { Preparation } = require("./sealing/preparation.js")

let warned = false

/** The backend of a store with these options: a native connection, or the client if its settings cannot be read. */
function openBackend(options, listener) {
  const backend = openPlain(options, listener)
  const { hashIds, sealing, commandTimeoutMs } = options
  if (hashIds === "migrate") return new Migration(backend, sealing, commandTimeoutMs)
  if (hashIds !== "prepare") return backend
  const name = needsSwaps(options)
  if (name !== undefined && sealing.isOn) {
    throw optionError(
      `Option "hashIds" can be "prepare" with encryption or compression only without "${name}"; leave one of them out until the ids are hashed.`,
    )
  }
  return new Preparation(backend, sealing, commandTimeoutMs)
}

function openPlain(options, listener) {
  const { client, connectTimeoutMs, commandTimeoutMs, maxPending, maxPendingBytes, touchAfter } = options
  const limits = { connectTimeoutMs, commandTimeoutMs, maxPending, maxPendingBytes }
  limits.touchAfterMs = touchAfter * 1000
  limits.swaps = needsSwaps(options) !== undefined
  limits.indexes = options.userOf !== undefined
  if (client === undefined) {
    const settings = readSettings(options)
    return new NativeBackend(undefined, () => settings, limits, listener)
  }
  const { settings, dialect, why } = recognise(client)
  if (settings === undefined) return delegate(options, dialect, limits, listener, why)
  const openNative = (listens) => new NativeBackend(client, settings, limits, listens)
  const openDelegate = (listens) => new Delegate(client, dialect, limits, listens)
  // With these options the client cannot stand in for the native connection.
  const isAlone =
    limits.swaps ||
    (needsPttl(options) !== undefined && !hasPttl(client)) ||
    (limits.indexes && !runsScripts(client, dialect))
  try {
    return isAlone ? openNative(listener) : new SafetyNet(client, openNative, openDelegate, limits, listener)
  } catch (error) {
    const fallback = delegate(options, dialect, limits, listener, error.message)
    warnOfFallback(error)
    return fallback
  }
}

function delegate(options, dialect, limits, listener, why) {
  const name = needsSwaps(options)
  if (name !== undefined) {
    const reason = why ?? "The settings of this client cannot be read, so the store calls its commands."
    throw optionError(`Option "${name}" needs a native connection. ${reason} Pass {url}, or leave the option out.`)
  }
  const asking = needsPttl(options)
  if (asking !== undefined && !hasPttl(options.client)) {
    throw optionError(`Option ${asking} needs a client with the method pttl(); leave it out, or pass {url}.`)
  }
  if (options.userOf !== undefined && !runsScripts(options.client, dialect)) {
    throw optionError(
      'Option "userOf" needs a client of a known package with the methods eval() and pttl(), to run scripts; leave it out, or pass {url}.',
    )
  }
  return new Delegate(options.client, dialect, limits, listener)
}

/** Whether the client's commands can write the indexes of users. */
function runsScripts(client, dialect) {
  return dialect.script !== undefined && hasPttl(client)
}

/** The option that needs to compare the stored session with the loaded one, if one is set. */
function needsSwaps({ onConflict, maxLifetime }) {
  if (onConflict !== "overwrite") return "onConflict"
  return maxLifetime === undefined ? undefined : "maxLifetime"
}

/** The option that reads times to live, if one is set. */
function needsPttl({ freshExpires, hashIds }) {
  if (freshExpires) return '"freshExpires"'
  return typeof hashIds === "string" ? `"hashIds" as "${hashIds}"` : undefined
}

/** Emitted once per process: the store loses its speed and its retries, but no sessions. */
function warnOfFallback(error) {
  if (warned) return
  warned = true
  process.emitWarning(`${error.message} Until then, stores call the commands of their client.`, {
    code: "CONNECT_REDIS_NATIVE_FALLBACK",
  })
}

/** Connects. An error is ignored here: the first request fails with it. */
function connect(backend) {
  try {
    backend.connect()
  } catch {}
}

module.exports = { connect, openBackend }
