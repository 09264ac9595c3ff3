"use strict"

const { channel, tracingChannel } = require("node:diagnostics_channel")
const { debuglog } = require("node:util")

const { RedisStoreError } = require("../errors.js")

const commands = tracingChannel("connect-redis-native:command")
const { start, end, asyncStart, asyncEnd, error: failed } = commands
const connections = channel("connect-redis-native:connection")
const debug = debuglog("connect-redis-native")

/** Whether debug output may be enabled; Bun has no `enabled`. */
const isDebugged = () => debug.enabled !== false

/** Node 20 has no `hasSubscribers` for a tracing channel. */
function isTraced() {
  return (
    start.hasSubscribers ||
    end.hasSubscribers ||
    asyncStart.hasSubscribers ||
    asyncEnd.hasSubscribers ||
    failed.hasSubscribers
  )
}

/** The message of a command that is about to be sent. The batch adds `server` and `batchSize`. */
function begun(command) {
  const trace = { command }
  start.runStores(trace, nothing)
  end.publish(trace)
  return trace
}

/** The command of `trace` has ended; `deliver` passes the result to the caller. */
function ended(trace, error, deliver) {
  trace.outcome = error === null ? "ok" : error.code
  if (error !== null) {
    // Without its cause: some clients put the arguments of a command into their errors.
    trace.error = new RedisStoreError(error.code, error.message)
    failed.publish(trace)
  }
  asyncStart.runStores(trace, () => {
    try {
      deliver()
    } finally {
      asyncEnd.publish(trace)
    }
  })
}

/** Publishes a connection event of a store that now has this status. */
function announce(event, status, error) {
  if (isDebugged()) debug("%s, the store is %s%s", event, status, error === undefined ? "" : `: ${error.message}`)
  if (connections.hasSubscribers) connections.publish({ event, status, ...(error !== undefined && { error }) })
}

function nothing() {}

module.exports = { announce, begun, debug, ended, isDebugged, isTraced }
