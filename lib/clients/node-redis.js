"use strict"

const { RedisStoreError } = require("../errors.js")
const { readNodes } = require("../options/settings.js")
const { readTls } = require("../options/tls.js")
const { inTime } = require("../timers.js")
const { address, familyOf, urlOf } = require("./address.js")
const { current, observe } = require("./renewal.js")
const { whyDelegate } = require("./settings-check.js")

/** The limit for reading settings that the client does not expose; after that its visible options are used. */
const ASK_MS = 500

/**
 * The credentials that `read` finds in the client's options, or newer ones that the application gave the client
 * since.
 */
function renewable(client, read) {
  observe(client, read)
  return () => {
    const said = read()
    return said instanceof Promise ? said.then((found) => current(client, found)) : current(client, said)
  }
}

/** One client of each pool, or a promise of it: a pool exposes its options only this way. */
const members = new WeakMap()

function memberOf(pool) {
  if (!members.has(pool)) {
    let found
    // The function must neither throw nor keep the client: redis 5 would lose it.
    const asked = pool.execute((member) => {
      found = member
    })
    const member = asked.then(
      () => {
        members.set(pool, found)
        return found
      },
      (error) => {
        members.delete(pool)
        throw error
      },
    )
    // If this fails, the next call asks again.
    member.catch(() => {})
    members.set(pool, found ?? member)
  }
  return members.get(pool)
}

/** Undefined if all clients are busy: then the client is found when the store connects. */
function idleMember(pool) {
  return members.has(pool) || pool.idleClients > 0 ? memberOf(pool) : undefined
}

function whyNotPooled(member) {
  return member === undefined || member instanceof Promise ? undefined : whyDelegate("redis", member)
}

function nodeRedisPool(pool) {
  const member = memberOf(pool)
  if (member instanceof Promise) return member.then(() => nodeRedisPool(pool))
  const why = whyNotPooled(member)
  if (why !== undefined) {
    throw new RedisStoreError("ERR_REDIS_STORE_CONNECT", `The settings of this pool cannot be adopted: ${why}.`)
  }
  const settings = nodeRedisSettings(member)
  // In redis 6 the pool, not its clients, has the key prefix; redis 5 has none.
  return { ...settings, keyPrefix: pool._keyPrefix ?? "" }
}

function nodeRedis(client) {
  const settings = nodeRedisSettings(client)
  // select() changes no readable field, so the server is asked. A proxy may hang up on that command.
  return client.isReady && !settings.bareLogin ? withLiveDatabase(client, settings) : settings
}

function nodeRedisSettings(client) {
  const options = nodeRedisOptions(client, client.options ?? {}, isRedis6(client))
  return { ...options, credentials: renewable(client, options.credentials) }
}

async function withLiveDatabase(client, settings) {
  const target = client.options?.legacyMode ? client.v4 : client
  const asked = target.sendCommand(["CLIENT", "INFO"])
  const info = await inTime(asked, ASK_MS, () => new Error("no answer")).catch(() => undefined)
  const found = / db=(\d+)/.exec(String(info))
  return found === null ? settings : { ...settings, database: Number(found[1]) }
}

const isRedis6 = (client) => "_keyPrefix" in client

function nodeRedisOptions(client, options, prefixed) {
  const socket = options.socket ?? {}
  return {
    ...address(socket),
    username: options.username,
    password: options.password,
    database: options.database ?? 0,
    tls: socket.tls === true ? readTls(socket) : undefined,
    clientName: options.name,
    keyPrefix: (prefixed && options.keyPrefix) || "",
    family: familyOf(socket.family),
    bareLogin: options.disableClientInfo === true,
    credentials: () => nodeRedisCredentials(client, options),
  }
}

/**
 * redis 5 and 6 ask the credentials provider, and create one from the options if there is none. `others` fill
 * in fields that the provider leaves out.
 */
function nodeRedisCredentials(client, options, others = {}) {
  const { credentialsProvider, username, password } = options
  const said = credentialsProvider?.credentials?.() ?? { username, password }
  const complete = (found) => {
    const all = { username: found?.username ?? others.username, password: found?.password ?? others.password }
    return all.password || !saysHello(client, options) ? all : {}
  }
  return said instanceof Promise ? said.then(complete) : complete(said)
}

/** With HELLO, redis 5 and 6 send no user name without a password. */
function saysHello(client, { RESP }) {
  return isRedis6(client) ? (RESP ?? 3) !== 2 : Boolean(RESP)
}

/** redis 5 and 6 keep a cluster's options; redis 4 keeps only those of the nodes that it is connected to. */
function clusterOptions(client) {
  const kept = client._self?._options
  if (kept !== undefined) {
    return kept
  }
  const masters = client.masters ?? []
  // Shows a nodeAddressMap, which redis 4 does not expose.
  if (masters.some(isTranslated)) return undefined
  const { options } = masters.find((master) => master.client?.options)?.client ?? {}
  return options && { rootNodes: masters.map(({ host, port }) => ({ socket: { host, port } })), defaults: options }
}

/** Whether redis 4 connects to a node at an address other than the announced one. */
function isTranslated({ host, port, client }) {
  const socket = client?.options?.socket
  return socket !== undefined && (socket.host !== host || socket.port !== port)
}

function nodeRedisCluster(client) {
  const { rootNodes, defaults: given = {}, keyPrefix, RESP } = clusterOptions(client)
  const defaults = { ...given, RESP }
  const roots = rootNodes.map(({ url, socket, username, password }) => ({
    ...(url ? urlOf(url) : address(socket ?? {})),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
  }))
  const [first] = roots
  const settings = nodeRedisOptions(client, { ...defaults, socket: { ...defaults.socket, host: "", port: 0 } }, false)
  return {
    ...settings,
    nodes: roots.flatMap(({ nodes }) => nodes),
    cluster: true,
    username: settings.username ?? first.username,
    password: settings.password ?? first.password,
    credentials: () => nodeRedisCredentials(client, { ...(clusterOptions(client)?.defaults ?? given), RESP }, first),
    tls: settings.tls ?? first.tls,
    // redis 4 and 5 do not use `keyPrefix`.
    keyPrefix: (isRedis6(client) && keyPrefix) || "",
    database: 0,
  }
}

/** The options of a redis 6 sentinel, which it passes only to the constructor of a duplicate. */
function sentinelOptions(client) {
  if (typeof client.duplicate !== "function" || client._self === undefined) return undefined
  let options
  class Reader {
    constructor(given) {
      options = given
    }
  }
  const reader = Object.create(Reader.prototype, { _self: { value: client._self } })
  try {
    client.duplicate.call(reader)
  } catch {
    return undefined
  }
  return options?.sentinelRootNodes ? options : undefined
}

function nodeRedisSentinel(client) {
  const {
    name,
    sentinelRootNodes,
    nodeClientOptions = {},
    sentinelClientOptions = {},
    keyPrefix,
    RESP,
  } = sentinelOptions(client)
  const sentinelSocket = sentinelClientOptions.socket ?? {}
  const { username, password } = nodeRedisCredentials(client, {
    RESP,
    ...sentinelClientOptions,
    credentialsProvider: undefined,
  })
  return {
    ...nodeRedisOptions(client, { RESP, ...nodeClientOptions }, false),
    nodes: readNodes("client", sentinelRootNodes, 26379),
    sentinel: {
      name,
      username,
      password,
      tls: sentinelSocket.tls === true ? readTls(sentinelSocket) : undefined,
      family: familyOf(sentinelSocket.family),
    },
    keyPrefix: keyPrefix ?? "",
  }
}

module.exports = {
  clusterOptions,
  idleMember,
  nodeRedis,
  nodeRedisCluster,
  nodeRedisPool,
  nodeRedisSentinel,
  sentinelOptions,
  whyNotPooled,
}
