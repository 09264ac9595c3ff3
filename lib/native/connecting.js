"use strict"

const dns = require("node:dns")

const { Batch } = require("./batch.js")
const { loadProtocol } = require("./protocol.js")
const { giveRoots } = require("./roots.js")

/** The address order of the process. Undefined: the order of the system. */
const FIRST_FAMILY = { ipv4first: 4, ipv6first: 6 }

/**
 * Connections that stores over one client share, by client, then by settings and limits. Weak, so that a
 * connection whose stores are dropped without close() can be garbage collected.
 */
const shared = new WeakMap()

/**
 * A connection with these settings and limits. Stores over one client get the same connection if both are
 * equal.
 */
function connectionOf(client, settings, limits) {
  const complete = completed(settings)
  giveRoots(loadProtocol().binding, complete)
  if (client === undefined) return new Batch(complete, limits)
  if (!shared.has(client)) shared.set(client, new Map())
  const connections = shared.get(client)
  for (const [key, reference] of connections) if (!reference.deref()?.isOpen) connections.delete(key)
  const key = JSON.stringify([complete, limits], (_name, value) => (typeof value === "function" ? "function" : value))
  const found = connections.get(key)?.deref()
  if (found?.isOpen) return found
  const made = new Batch(complete, limits)
  connections.set(key, new WeakRef(made))
  return made
}

/** Sets every property that the native half reads, so that none is read from Object.prototype. */
function completed(settings) {
  const own = (object, name) => (Object.hasOwn(object, name) ? (object[name] ?? undefined) : undefined)
  const sentinel = own(settings, "sentinel")
  return {
    nodes: settings.nodes.map((node) => ({
      host: own(node, "host"),
      port: own(node, "port"),
      path: own(node, "path"),
    })),
    cluster: own(settings, "cluster") ?? false,
    sentinel: sentinel && {
      name: own(sentinel, "name"),
      username: own(sentinel, "username"),
      password: own(sentinel, "password"),
      tls: own(sentinel, "tls"),
      family: own(sentinel, "family"),
    },
    tls: own(settings, "tls"),
    family: own(settings, "family"),
    firstFamily: FIRST_FAMILY[dns.getDefaultResultOrder?.()],
    bareLogin: own(settings, "bareLogin") ?? false,
    username: own(settings, "username"),
    password: own(settings, "password"),
    credentials: own(settings, "credentials"),
    database: own(settings, "database") ?? 0,
    clientName: own(settings, "clientName"),
    keyPrefix: own(settings, "keyPrefix") ?? "",
  }
}

module.exports = { connectionOf }
