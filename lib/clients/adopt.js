"use strict"

const { dialectOf } = require("./dialects.js")
const { ioredis, ioredisCluster, ioredisSentinel } = require("./ioredis.js")
const {
  clusterOptions,
  idleMember,
  nodeRedis,
  nodeRedisCluster,
  nodeRedisPool,
  nodeRedisSentinel,
  sentinelOptions,
  whyNotPooled,
} = require("./node-redis.js")
const { callbackRedis, isGlideCluster, valkeyGlide } = require("./other-clients.js")
const { whyDelegate } = require("./settings-check.js")
const { isProxy, whyWrapped } = require("./wrapped.js")

/**
 * How each kind of client is recognized, and where it keeps its settings. `settings` is called when the store
 * first connects, after the application has finished its set-up of the client. The store delegates to a client
 * without `settings`, or one that is not `readable`, by the commands of `dialect`.
 */
const KINDS = [
  {
    kind: "redis-mock",
    testedWith: ["redis-mock 0.47", "redis-mock 0.56"],
    matches: (client) => has(client, "pub_sub_mode") && !has(client, "connection_options"),
    dialect: "mock",
  },
  {
    kind: "@upstash/redis",
    testedWith: ["@upstash/redis 1.39"],
    matches: (client) => client.client?.baseUrl !== undefined || client.baseUrl !== undefined,
    dialect: "upstash",
  },
  {
    kind: "ioredis Cluster",
    testedWith: ["ioredis 4.31", "ioredis 5.11", "ioredis 6.0", "iovalkey 0.4"],
    matches: (client) => client.isCluster === true && has(client, "startupNodes"),
    settings: ioredisCluster,
    dialect: "ioredisCluster",
  },
  {
    kind: "ioredis sentinel",
    testedWith: ["ioredis 4.31", "ioredis 5.11", "ioredis 6.0", "iovalkey 0.4"],
    matches: (client) => isIoredis(client) && Array.isArray(client.options.sentinels),
    settings: ioredisSentinel,
    dialect: "positional",
  },
  {
    kind: "ioredis",
    testedWith: ["ioredis 4.31", "ioredis 5.11", "ioredis 6.0", "iovalkey 0.4"],
    matches: isIoredis,
    settings: ioredis,
    dialect: "positional",
  },
  {
    kind: "redis sentinel",
    testedWith: ["redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "getMasterNode") && has(client, "getSentinelNode"),
    // redis 5 does not expose its options.
    readable: (client) => sentinelOptions(client) !== undefined,
    options: sentinelOptions,
    settings: nodeRedisSentinel,
    dialect: "nodeRedisPool",
  },
  {
    kind: "redis cluster",
    testedWith: ["redis 4.7", "redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "masters") && has(client, "nodeClient"),
    readable: (client) => clusterOptions(client) !== undefined,
    options: clusterOptions,
    settings: nodeRedisCluster,
    dialect: "nodeRedisCluster",
  },
  {
    kind: "redis pool",
    testedWith: ["redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "execute") && has(client, "totalClients"),
    readable: (client) => client.isOpen && client.totalClients > 0,
    why: (client) => whyNotPooled(idleMember(client)),
    settings: nodeRedisPool,
    dialect: "nodeRedisPool",
  },
  {
    kind: "redis with credentialsProvider",
    testedWith: ["redis 5.12", "redis 6.3"],
    // The credentials of a url are kept as text and as a provider.
    matches: (client) =>
      isNodeRedis(client) && client.options?.credentialsProvider !== undefined && client.options.password === undefined,
    settings: nodeRedis,
    dialect: "nodeRedis",
  },
  {
    kind: "redis",
    testedWith: ["redis 4.7", "redis 5.12", "redis 6.3"],
    matches: (client) => isNodeRedis(client) && !client.options?.legacyMode,
    settings: nodeRedis,
    dialect: "nodeRedis",
  },
  {
    kind: "redis in legacyMode",
    testedWith: ["redis 4.7"],
    matches: isNodeRedis,
    settings: nodeRedis,
    dialect: "positional",
  },
  {
    kind: "valkey-glide",
    testedWith: ["@valkey/valkey-glide 2.5"],
    matches: (client) => typeof client.createClientRequest === "function",
    readable: ({ config }) => config?.addresses !== undefined,
    settings: valkeyGlide,
    dialect: (client) => (isGlideCluster(client) ? "glideCluster" : "glide"),
  },
  {
    kind: "redis 2 or 3",
    testedWith: ["redis 2.8", "redis 3.1"],
    matches: (client) => has(client, "connection_options") && typeof client.internal_send_command === "function",
    settings: callbackRedis,
    dialect: "positional",
  },
]

/**
 * Describes a client: `settings()`, unless it cannot be adopted, and the `dialect` of its commands.
 */
function recognise(client) {
  const kind = KINDS.find(({ matches }) => holds(matches, client))
  const name = typeof kind?.dialect === "function" ? kind.dialect(client) : kind?.dialect
  const wrapped =
    kind === undefined ? isProxy(client) && "it is a Proxy" : kind.settings !== undefined && wrappedBy(kind, client)
  const dialect = dialectOf(client, name, Boolean(wrapped))
  if (wrapped) return { dialect, why: notAdopted(wrapped) }
  const readable = kind?.settings !== undefined && (kind.readable === undefined || holds(kind.readable, client))
  const why = readable ? whyDelegated(kind, client) : undefined
  if (!readable || why !== undefined) return { dialect, why }
  return { settings: () => normalised(kind.settings(client)), dialect }
}

/** Why the commands of the client are not its library's own; undefined if they are. */
function wrappedBy({ kind }, client) {
  try {
    return whyWrapped(client, { isLegacy: kind === "redis in legacyMode" })
  } catch {
    return "its methods cannot be read"
  }
}

const notAdopted = (why) => `The settings of this client cannot be adopted: ${why}.`

/** Undefined if the client's settings can be adopted. */
function whyDelegated({ kind, options, why: ask }, client) {
  try {
    const why = ask === undefined ? whyDelegate(kind, client, options?.(client)) : ask(client)
    return why && notAdopted(why)
  } catch {
    return "The settings of this client cannot be read, so the store calls its commands."
  }
}

/** Clients may hold null, "" or a number in place of a text. */
function normalised(settings) {
  if (typeof settings.then === "function") return settings.then(normalised)
  const { credentials } = settings
  const texts = ({ username, password, clientName }) => ({
    username: textOf(username),
    password: textOf(password),
    clientName: textOf(clientName),
  })
  const { sentinel } = settings
  return {
    ...settings,
    ...texts(settings),
    sentinel: sentinel && { ...sentinel, ...texts(sentinel) },
    credentials: credentials && (async () => texts((await credentials()) ?? {})),
  }
}

const textOf = (value) => (value == null || value === "" ? undefined : String(value))

/** A Proxy around a client may throw where the client itself would not. That counts as false. */
function holds(question, client) {
  try {
    return question(client)
  } catch {
    return false
  }
}

function isIoredis(client) {
  return (
    has(client, "connector") &&
    typeof client.status === "string" &&
    client.options != null &&
    "lazyConnect" in client.options
  )
}

/** The lease of a sentinel client has no options: its server is unknown. */
function isNodeRedis(client) {
  return typeof client.sendCommand === "function" && typeof client.isOpen === "boolean" && has(client, "options")
}

/** Whether the client has this property. It is not read: a getter may throw before the client is connected. */
function has(client, name) {
  return name in client
}

module.exports = { recognise, KINDS }
