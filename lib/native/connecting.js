"use strict"

const dns = require("node:dns")

const { Batch } = require("./batch.js")
const { loadProtocol } = require("./protocol.js")
const { giveRoots } = require("./roots.js")

/** The process's order of addresses. Undefined for the system's. */
const FIRST_FAMILY = { ipv4first: 4, ipv6first: 6 }

/**
 * Connections that stores over one client share, by client, then by everything that makes them equal.
 * Weak: one whose stores are dropped without close() is collected.
 */
const shared = new WeakMap()

/**
 * A connection by these settings and limits; one that another store over the same client has already, if
 * it is equal.
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

/** Every property that the native half reads, so that none is read from Object.prototype. */
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
