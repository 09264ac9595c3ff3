"use strict"

/**
 * What a store asks of its backend. An object for each and not its name, so that a request needs no look-up: once
 * the binding is loaded, each has the number that the native half knows it by, and the command that it is or
 * begins with.
 */
class Operation {
  number = -1
  command = undefined

  constructor(name) {
    this.name = name
  }
}

const NAMES = [
  "get",
  "set",
  "expire",
  "destroy",
  "mget",
  "length",
  "ids",
  "clear",
  "replace",
  "swap",
  "merge",
  "restore",
  "add",
  "pttl",
  "ping",
  "index",
  "signIn",
  "save",
  "entries",
  "revoke",
  "remove",
  "sweep",
  "renew",
]

const OPERATIONS = Object.fromEntries(NAMES.map((name) => [name, new Operation(name)]))

module.exports = { OPERATIONS }
