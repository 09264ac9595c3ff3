"use strict"

/**
 * The operations of a backend. Each is an object instead of a name, so that a request needs no look-up: once
 * the binding is loaded, it has its number on the boundary and the name of its (first) command.
 */
class Operation {
  number = -1
  command = undefined

  /** `isByUser`: it is about the sessions of a user, and sent by the method byUser(). */
  constructor(name, isByUser) {
    this.name = name
    this.isByUser = isByUser
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
  "marker",
  "pttl",
  "ping",
]

const BY_USER = ["index", "signIn", "save", "entries", "revoke", "remove", "sweep", "renew"]

const OPERATIONS = Object.fromEntries([
  ...NAMES.map((name) => [name, new Operation(name, false)]),
  ...BY_USER.map((name) => [name, new Operation(name, true)]),
])

module.exports = { OPERATIONS }
