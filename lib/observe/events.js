"use strict"

const { announce } = require("./diagnostics.js")

/** Turns changes of the connection into events of the store. */
function connectionListener(store, emitConnectionEvents) {
  let reported
  const report = (event) => {
    if (!emitConnectionEvents || event === reported) return
    reported = event
    store.emit(event)
  }
  return (event, error) => {
    announce(event, store.status, error)
    if (event === "error") {
      // An 'error' without a listener ends the process.
      if (store.listenerCount("error") > 0) store.emit("error", error)
    } else if (event === "status") {
      if (store.status === "down") report("disconnect")
      else if (reported === "disconnect") report("connect")
    } else {
      store.emit(event)
      if (event === "ready") report("connect")
    }
  }
}

module.exports = { connectionListener }
