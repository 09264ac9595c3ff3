"use strict"

const { optionError } = require("./errors.js")
const { readTls } = require("./tls.js")
const { DEFAULT_PORT } = require("./url.js")

/**
 * How each kind of client is recognised and where it keeps its settings. `settings` is read when
 * the store first connects, so that a client that is still being set up is read right; it does no
 * I/O. A row without `settings` is a client that cannot be adopted: `advice` says what to pass.
 */
const KINDS = [
  {
    kind: "redis-mock",
    testedWith: ["redis-mock 0.47", "redis-mock 0.56"],
    matches: (client) => has(client, "pub_sub_mode") && !has(client, "connection_options"),
    delegate: true,
  },
  {
    kind: "ioredis Cluster",
    testedWith: ["ioredis 5.11", "ioredis 6.0"],
    matches: (client) => client.isCluster === true && has(client, "startupNodes"),
    advice: "a client of one server, or {url}; clusters are not adopted yet",
  },
  {
    kind: "ioredis sentinel",
    testedWith: ["ioredis 5.11", "ioredis 6.0"],
    matches: (client) => isIoredis(client) && Array.isArray(client.options.sentinels),
    advice: "a client of the master itself, or {url}; sentinels are not adopted yet",
  },
  {
    kind: "ioredis",
    testedWith: ["ioredis 4.31", "ioredis 5.11", "ioredis 6.0"],
    matches: isIoredis,
    settings: ioredis,
  },
  {
    kind: "redis sentinel",
    testedWith: ["redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "getMasterNode") && has(client, "getSentinelNode"),
    advice: "a client of the master itself, or {url}; sentinels are not adopted yet",
  },
  {
    kind: "redis cluster",
    testedWith: ["redis 4.7", "redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "masters") && has(client, "nodeClient"),
    advice: "a client of one server, or {url}; clusters are not adopted yet",
  },
  {
    kind: "redis pool",
    testedWith: ["redis 5.12", "redis 6.3"],
    matches: (client) => has(client, "execute") && has(client, "totalClients"),
    advice: "a client instead of a pool: the store has a connection of its own",
  },
  {
    kind: "redis with credentialsProvider",
    testedWith: ["redis 6.3"],
    // The credentials of a url are kept as text and as a provider.
    matches: (client) =>
      isNodeRedis(client) && client.options?.credentialsProvider !== undefined && client.options.password === undefined,
    advice: "a client with username and password, or {url}; credentialsProvider is not adopted yet",
  },
  {
    kind: "redis",
    testedWith: ["redis 4.7", "redis 4.7 legacyMode", "redis 5.12", "redis 6.3"],
    matches: isNodeRedis,
    settings: nodeRedis,
  },
  {
    kind: "redis 2 or 3",
    testedWith: ["redis 2.8", "redis 3.1"],
    matches: (client) => has(client, "connection_options") && typeof client.internal_send_command === "function",
    settings: callbackRedis,
  },
]

/** The row of `client`, or a TypeError that says what to pass. */
function recognise(client) {
  const kind = KINDS.find(({ matches }) => matches(client))
  if (kind === undefined) {
    throw optionError(
      'Option "client" must be a client of redis (2 to 6) or ioredis (4 to 6), got an object that is neither; pass one of those, or {url: "redis://..."}.',
    )
  }
  if (kind.advice !== undefined) {
    throw optionError(`Option "client" is a client of the kind "${kind.kind}"; pass ${kind.advice}.`)
  }
  return kind
}

function ioredis(client) {
  const { options, condition } = client
  const [username, password] = Array.isArray(condition?.auth)
    ? condition.auth
    : condition?.auth
      ? [undefined, condition.auth]
      : [options.username, options.password]
  return {
    ...address(options),
    username: username ?? undefined,
    password: password ?? undefined,
    database: Number(condition?.select ?? options.db ?? 0),
    tls: options.tls && options.path == null ? readTls(options.tls === true ? {} : options.tls) : undefined,
    clientName: options.connectionName ?? undefined,
    keyPrefix: options.keyPrefix || "",
  }
}

function nodeRedis(client) {
  const options = client.options ?? {}
  const socket = options.socket ?? {}
  return {
    ...address(socket),
    username: options.username,
    password: options.password,
    database: options.database ?? 0,
    tls: socket.tls === true ? readTls(socket) : undefined,
    clientName: options.name,
    keyPrefix: options.keyPrefix !== undefined && "_keyPrefix" in client ? options.keyPrefix : "",
    // select() leaves no trace that could be read: only the server knows.
    askDatabase: client.isReady ? () => askDatabase(client) : undefined,
  }
}

async function askDatabase(client) {
  const target = client.options?.legacyMode ? client.v4 : client
  const info = await target.sendCommand(["CLIENT", "INFO"])
  const found = / db=(\d+)/.exec(String(info))
  return found === null ? undefined : Number(found[1])
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
  }
}

function address({ host, port, path }) {
  const node = path == null ? { host: host ?? "localhost", port: Number(port ?? DEFAULT_PORT) } : { path: String(path) }
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

function isNodeRedis(client) {
  return typeof client.sendCommand === "function" && typeof client.isOpen === "boolean"
}

/** Whether the client has it at all: a getter may throw before the client is connected. */
function has(client, name) {
  return name in client
}

module.exports = { recognise, KINDS }
