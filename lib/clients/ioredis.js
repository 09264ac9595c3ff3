"use strict"

const dns = require("node:dns")

const { readNodes } = require("../options/settings.js")
const { DEFAULT_PORT } = require("../options/url.js")
const { address, familyOf, tlsOf, urlOf } = require("./address.js")
const { current, isSame, observe } = require("./renewal.js")

function ioredis(client) {
  const { options, condition } = client
  const credentials = ioredisCredentials(client)
  return {
    ...address(options),
    ...login(options, credentials()),
    database: Number(condition?.select ?? options.db ?? 0),
    tls: options.path ? undefined : tlsOf(options.tls),
    family: familyOf(options.tls?.family ?? options.family),
    credentials,
  }
}

/**
 * The credentials in its options or in the last call of auth(), whichever came last; initially those that it
 * connected with.
 */
function ioredisCredentials(client) {
  const said = () => ({ username: client.options.username, password: client.options.password })
  const connected = () => {
    const auth = client.condition?.auth
    if (!auth) return said()
    return Array.isArray(auth) ? { username: auth[0], password: auth[1] } : { password: auth }
  }
  observe(client, said, (given) => isSame(given, connected()))
  const first = said()
  return () => {
    const now = said()
    const last = current(client, now)
    return last === now && isSame(first, now) ? connected() : last
  }
}

function ioredisSentinel(client) {
  const { options, condition } = client
  return {
    nodes: readNodes("client", options.sentinels, 26379),
    sentinel: {
      name: options.name,
      username: options.sentinelUsername ?? undefined,
      password: options.sentinelPassword ?? undefined,
      tls: tlsOf(options.sentinelTLS),
      family: familyOf(options.sentinelTLS?.family ?? options.family),
    },
    ...login(options),
    credentials: ioredisCredentials(client),
    database: Number(condition?.select ?? options.db ?? 0),
    tls: options.enableTLSForSentinelMode ? tlsOf(options.tls) : undefined,
  }
}

function ioredisCluster(client) {
  const { options, startupNodes } = client
  const redis = options.redisOptions ?? {}
  const said = startupNodes.map((node) => {
    if (typeof node === "number" || /^\d+$/.test(node)) return { nodes: clusterNode({ port: node }) }
    return typeof node === "string" ? urlOf(node) : { nodes: clusterNode(node) }
  })
  const [first] = said
  const credentials = () => {
    const { username, password } = client.options.redisOptions ?? {}
    return { username: username ?? first.username, password: password ?? first.password }
  }
  return {
    nodes: said.flatMap(({ nodes }) => nodes),
    cluster: true,
    ...login(redis, credentials()),
    credentials,
    // The default lookup ignores `family`.
    family: options.dnsLookup === dns.lookup ? undefined : familyOf(redis.family),
    // ioredis 5 and 6 copy `redisOptions.keyPrefix` here; ioredis 4 does not use it.
    keyPrefix: options.keyPrefix || "",
    database: 0,
    tls: tlsOf(redis.tls) ?? first.tls,
  }
}

/** An empty host or port counts as absent. */
const clusterNode = ({ host, port }) =>
  readNodes("client", [{ host: host || undefined, port: port || undefined }], DEFAULT_PORT)

function login(options, { username = options.username, password = options.password } = {}) {
  return {
    username,
    password,
    clientName: options.connectionName,
    keyPrefix: options.keyPrefix || "",
    bareLogin: options.disableClientInfo === true,
  }
}

module.exports = { ioredis, ioredisCluster, ioredisSentinel }
