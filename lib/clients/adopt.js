"use strict"

const dns = require("node:dns")

const { RedisStoreError } = require("../errors.js")
const { readNodes } = require("../options/settings.js")
const { readTls } = require("../options/tls.js")
const { DEFAULT_PORT, readUrl } = require("../options/url.js")
const { inTime } = require("../timers.js")
const { dialectOf } = require("./dialects.js")
const { current, isSame, observe } = require("./renewal.js")
const { whyDelegate } = require("./settings-check.js")
const { isProxy, whyWrapped } = require("./wrapped.js")

/**
 * How each kind of client is recognised and where it keeps its settings. `settings` is read when
 * the store first connects, so that a client that is still being set up is read right. A row without
 * `settings`, and a client that is not `readable`, is delegated to, in the words of `dialect`.
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

/** How long a client is asked what it does not show, before what it shows is taken. */
const ASK_MS = 500

/**
 * What is known of a client: `settings()`, unless it cannot be adopted, and the `dialect` of its
 * commands.
 */
function recognise(client) {
  const kind = KINDS.find(({ matches }) => holds(matches, client))
  const name = typeof kind?.dialect === "function" ? kind.dialect(client) : kind?.dialect
  const wrapped =
    kind === undefined ? isProxy(client) && "it is a Proxy" : kind.settings !== undefined && wrappedBy(kind, client)
  const dialect = dialectOf(client, name, Boolean(wrapped))
  if (wrapped) return { dialect, why: askedItself(wrapped) }
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

const askedItself = (why) => `This client must be asked itself: ${why}.`

/** Undefined if the client's settings can be adopted. */
function whyDelegated({ kind, options, why: ask }, client) {
  try {
    const why = ask === undefined ? whyDelegate(kind, client, options?.(client)) : ask(client)
    return why && askedItself(why)
  } catch {
    return "The settings of this client cannot be read, and so its own commands are used."
  }
}

/** Clients keep null, "" and numbers where they mean no text, or text. */
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

/** A Proxy around a client may throw where the client itself would tell: then it does not tell. */
function holds(question, client) {
  try {
    return question(client)
  } catch {
    return false
  }
}

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

/** What `read` reads off the client's options, or what the client was given since. */
function renewable(client, read) {
  observe(client, read)
  return () => {
    const said = read()
    return said instanceof Promise ? said.then((found) => current(client, found)) : current(client, said)
  }
}

/** What its options say or auth() was given, whichever came last; before any of these, what it is connected with. */
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
    // By default addresses are looked up without it.
    family: options.dnsLookup === dns.lookup ? undefined : familyOf(redis.family),
    // ioredis 5 and 6 copy that of redisOptions here; ioredis 4 does not use it.
    keyPrefix: options.keyPrefix || "",
    database: 0,
    tls: tlsOf(redis.tls) ?? first.tls,
  }
}

/** An empty host or port is none. */
const clusterNode = ({ host, port }) =>
  readNodes("client", [{ host: host || undefined, port: port || undefined }], DEFAULT_PORT)

/** A URL as clients read it: they ignore parameters, and ioredis takes one without its scheme. */
function urlOf(text) {
  const [url] = text.split("?")
  return readUrl(/^\w+:\/\//.test(url) ? url : `redis://${url.replace(/^\/\//, "")}`)
}

const tlsOf = (value) => (value ? readTls(value === true ? {} : value) : undefined)

function login(options, { username = options.username, password = options.password } = {}) {
  return {
    username,
    password,
    clientName: options.connectionName,
    keyPrefix: options.keyPrefix || "",
    bareLogin: options.disableClientInfo === true,
  }
}

/** 4 or 6. Clients take 0, text and "IPv6" too. */
function familyOf(value) {
  const [digit] = /[46]$/.exec(String(value ?? "")) ?? []
  return digit && Number(digit)
}

/** A client of each pool, which exposes its options only this way, or a promise of it. */
const members = new WeakMap()

function memberOf(pool) {
  if (!members.has(pool)) {
    let found
    // It must neither throw nor keep the client: redis 5 would lose it.
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
    // Asked in time or not at all: the next question asks anew.
    member.catch(() => {})
    members.set(pool, found ?? member)
  }
  return members.get(pool)
}

/** Undefined if all of them are busy: then it is known when the store connects. */
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
    throw new RedisStoreError("ERR_REDIS_STORE_CONNECT", `The clients of this pool must be asked themselves: ${why}.`)
  }
  const settings = nodeRedisSettings(member)
  // redis 6 keeps it from its clients, and redis 5 has none.
  return { ...settings, keyPrefix: pool._keyPrefix ?? "" }
}

function nodeRedis(client) {
  const settings = nodeRedisSettings(client)
  // select() leaves no trace that could be read: only the server knows. A proxy may hang up on the question.
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
 * redis 5 and 6 ask the provider, which they make of the options if there is none. `others` count where it
 * says nothing.
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

/** With HELLO, redis 5 and 6 send no user name that has no password. */
function saysHello(client, { RESP }) {
  return isRedis6(client) ? (RESP ?? 3) !== 2 : Boolean(RESP)
}

/** redis 5 and 6 keep a cluster's options; redis 4 only those of the nodes it is connected to. */
function clusterOptions(client) {
  const kept = client._self?._options
  if (kept !== undefined) {
    return kept
  }
  const masters = client.masters ?? []
  // nodeAddressMap, which it does not show.
  if (masters.some(isTranslated)) return undefined
  const { options } = masters.find((master) => master.client?.options)?.client ?? {}
  return options && { rootNodes: masters.map(({ host, port }) => ({ socket: { host, port } })), defaults: options }
}

/** Whether a node of redis 4 is connected to elsewhere than where the cluster says. */
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
    // redis 4 and 5 do not use it.
    keyPrefix: (isRedis6(client) && keyPrefix) || "",
    database: 0,
  }
}

/** The options of a redis 6 sentinel, which it hands to the constructor of a duplicate only. */
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

function callbackRedis(client) {
  const connection = client.connection_options
  return {
    ...address(connection),
    username: client.auth_user ?? undefined,
    password: client.auth_pass ?? undefined,
    database: Number(client.selected_db ?? client.options.db ?? 0),
    tls: client.options.tls ? readTls(connection) : undefined,
    keyPrefix: client.options.prefix ?? "",
    family: familyOf(connection.family),
    // A user name alone is not sent.
    credentials: () =>
      client.auth_pass === undefined ? {} : { username: client.auth_user, password: client.auth_pass },
  }
}

function valkeyGlide(client) {
  const said = () => client.config.credentials ?? {}
  observe(client, said)
  const { addresses, credentials, databaseId, useTLS, clientName, advancedConfiguration } = client.config
  const { insecure, rootCertificates } = { __proto__: null, ...advancedConfiguration?.tlsAdvancedConfiguration }
  return {
    nodes: readNodes("client", addresses, DEFAULT_PORT),
    cluster: isGlideCluster(client),
    username: credentials?.username,
    password: credentials?.password,
    database: databaseId ?? 0,
    tls: useTLS ? readTls({ ca: rootCertificates, rejectUnauthorized: !insecure }) : undefined,
    clientName,
    keyPrefix: "",
    // A user name alone is not sent.
    credentials: () => {
      const found = current(client, said())
      return found.password ? found : {}
    },
  }
}

function address({ host, port, path }) {
  const node = path ? { path: String(path) } : { host: host || "localhost", port: Number(port || DEFAULT_PORT) }
  return { nodes: [node] }
}

function isIoredis(client) {
  return (
    has(client, "connector") &&
    typeof client.status === "string" &&
    client.options != null &&
    "lazyConnect" in client.options
  )
}

/** By what only the cluster's client can do. */
function isGlideCluster(client) {
  return typeof client.fcallWithRoute === "function"
}

function isNodeRedis(client) {
  return typeof client.sendCommand === "function" && typeof client.isOpen === "boolean"
}

/** Whether the client has it at all: a getter may throw before the client is connected. */
function has(client, name) {
  return name in client
}

module.exports = { recognise, KINDS }
