"use strict"

const { isProxy } = require("node:util").types

/** The methods that applications wrap to put keys into a namespace, and that a native connection would bypass. */
const COMMANDS = ["get", "set", "del", "expire", "pexpire", "pExpire", "mget", "mGet", "scan", "scanIterator"]
/** A command of every library that neither stores nor wrappers use. */
const OTHER = "append"

/**
 * The reason why the commands of a client of a known kind are not its library's own, or undefined. Libraries
 * define each command once, on a prototype; tracing tools that replace it there do not count as wrappers. redis
 * 4 in legacyMode is the exception: it defines all commands again as properties of the client.
 */
function whyWrapped(client, { isLegacy = false } = {}) {
  if (isProxy(client)) return "it is a Proxy"
  for (const name of COMMANDS) {
    if (typeof client[name] === "function" && !isOfLibrary(client, name, isLegacy)) {
      return `its method ${name}() is not the library's own`
    }
  }
}

function isOfLibrary(client, name, isLegacy) {
  const [holder, ...others] = holdersOf(client, name)
  if (isLegacy && holder === client) return Object.hasOwn(client, OTHER) && isAlike(client[name], client[OTHER])
  if (others.length > 0 || !Object.hasOwn(holder, "constructor")) return false
  // A class around a client defines few commands.
  return name !== "get" || Object.hasOwn(holder, OTHER)
}

/** The objects of the prototype chain that define this property, the nearest first. */
function holdersOf(client, name) {
  const holders = []
  for (let at = client; at !== null; at = Object.getPrototypeOf(at)) {
    if (Object.hasOwn(at, name)) holders.push(at)
  }
  return holders
}

function isAlike(one, other) {
  return String(one) === String(other)
}

module.exports = { isProxy, whyWrapped }
