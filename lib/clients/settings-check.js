"use strict"

const { ADOPTED, HARMLESS, TABLES } = require("./settings-table.js")

/**
 * The settings of each kind of client, as [table, settings] pairs: those that adopt.js reads, and all others.
 */
const SETTINGS_OF = {
  "ioredis Cluster": ({ options, startupNodes }) => [
    ["ioredisCluster", options],
    ...ioredisOptions(options.redisOptions),
    ...startupNodes.filter((node) => typeof node === "object").map((node) => ["ioredisNode", node]),
  ],
  "ioredis sentinel": ({ options }) => [
    ...ioredisOptions(options),
    ...tlsOptions(options.sentinelTLS),
    ...options.sentinels.map(({ family }) => ["ioredisSentinel", { family }]),
  ],
  ioredis: ({ options }) => ioredisOptions({ ...options, ...UNUSED_WITHOUT_SENTINELS }),
  "redis sentinel": (_client, options) => [
    ["nodeRedisSentinel", options],
    ...nodeRedisOptions(options.nodeClientOptions),
    ...nodeRedisOptions(options.sentinelClientOptions),
    ["nodeRedisSentinelClient", options.sentinelClientOptions],
  ],
  "redis cluster": (_client, options) => [
    ["nodeRedisCluster", options],
    ...nodeRedisOptions(options.defaults),
    ...options.rootNodes.flatMap(nodeRedisOptions),
  ],
  redis: ({ options }) => nodeRedisOptions(options),
  "redis with credentialsProvider": ({ options }) => nodeRedisOptions(options),
  "redis in legacyMode": ({ options }) => nodeRedisOptions(options),
  "valkey-glide": ({ config, fcallWithRoute }) => [
    ["glide", config],
    // Only the cluster client has this method.
    ["glideStandalone", fcallWithRoute ? {} : { addresses: config.addresses }],
    ["glideAdvanced", config.advancedConfiguration],
    ["glideTls", config.advancedConfiguration?.tlsAdvancedConfiguration],
    ["glideCredentials", config.credentials],
  ],
  "redis 2 or 3": ({ options }) => [
    ["callbackRedis", options],
    ...tlsOptions(typeof options.tls === "object" ? options.tls : undefined),
  ],
}

const UNUSED_WITHOUT_SENTINELS = { natMap: undefined, role: undefined }

function ioredisOptions(options) {
  return [["ioredis", options], ...tlsOptions(options?.tls, options)]
}

/** For a rediss:// URL ioredis sets `tls` to true. An object may override the address. */
function tlsOptions(options, address = {}) {
  if (!options) return []
  const { host, port, path, ...others } = options === true ? {} : options
  const own = Object.entries({ host, port }).filter(([name, value]) => value !== address[name])
  return [
    ["tls", others],
    ["tlsAddress", { ...Object.fromEntries(own), path: path ?? (address.path || undefined) }],
  ]
}

function nodeRedisOptions(options) {
  const { socket } = options ?? {}
  if (socket?.tls !== true)
    return [
      ["nodeRedis", options],
      ["nodeRedisSocket", socket],
    ]
  return [
    ["nodeRedis", options],
    ["nodeRedisTlsSocket", { ...socket, path: undefined }],
    ["tlsAddress", { path: socket.path }],
  ]
}

/**
 * The reason to delegate to a client of this kind: its first setting that a native connection cannot follow,
 * and the effect of that setting. Undefined if there is none. Null and undefined settings count as not set.
 */
function whyDelegate(kind, client, options) {
  for (const [name, settings] of SETTINGS_OF[kind]?.(client, options) ?? []) {
    for (const [setting, value] of Object.entries(settings ?? {})) {
      const why = value == null ? undefined : reasonOf(TABLES[name][setting], value, settings)
      if (why !== undefined) return `its option "${setting}" ${why}`
    }
  }
}

function reasonOf(entry, value, settings) {
  if (entry === ADOPTED || entry === HARMLESS) return undefined
  if (entry === undefined) return "is unknown"
  return entry.isAdopted(value, settings) ? undefined : entry.reason
}

module.exports = { whyDelegate }
