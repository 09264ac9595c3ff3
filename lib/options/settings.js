"use strict"

const { kindOf, optionError } = require("../errors.js")
const { readTlsOption } = require("./tls.js")
const { DEFAULT_PORT, readUrl } = require("./url.js")

const SENTINEL_PORT = 26379
const SENTINEL_OPTIONS = ["name", "nodes", "username", "password", "tls"]

/**
 * The connection settings of a store without a client: one server by `url`, a cluster by some of its `nodes`,
 * or the master that a `sentinel` names. Values in `url` override the other options.
 */
function readSettings({ url, nodes, sentinel, tls, username, password, credentials, database, clientName }) {
  const common = {
    username: username ?? undefined,
    password: password ?? undefined,
    database: database ?? 0,
    clientName: clientName ?? undefined,
    credentials: credentials ?? undefined,
    tls: readTlsOption("tls", tls),
  }
  if (url !== undefined) {
    const said = readUrl(url)
    return {
      nodes: said.nodes,
      cluster: false,
      ...common,
      username: said.username ?? common.username,
      password: said.password ?? common.password,
      database: said.database ?? common.database,
      family: said.family,
      tls: said.tls && !common.tls ? said.tls : common.tls,
    }
  }
  if (nodes !== undefined) {
    if (common.database !== 0) {
      throw optionError(`Option "database" must be 0 for a cluster, got ${kindOf(database)}.`)
    }
    return { nodes: readNodes("nodes", nodes, DEFAULT_PORT), cluster: true, ...common }
  }
  return { ...readSentinel(sentinel), cluster: false, ...common }
}

function readSentinel(sentinel) {
  for (const name of Object.keys(sentinel)) {
    if (!SENTINEL_OPTIONS.includes(name)) {
      throw optionError(`Option "sentinel.${name}" is unknown; the known options are ${SENTINEL_OPTIONS.join(", ")}.`)
    }
  }
  const own = (field) => (Object.hasOwn(sentinel, field) ? sentinel[field] : undefined)
  const [name, nodes, username, password, tls] = SENTINEL_OPTIONS.map(own)
  if (typeof name !== "string" || name === "") {
    throw optionError(`Option "sentinel.name" must be the name of a master group, got ${kindOf(name)}.`)
  }
  for (const [field, value] of Object.entries({ username, password })) {
    if (value != null && typeof value !== "string") {
      throw optionError(`Option "sentinel.${field}" must be a string, got a ${typeof value}.`)
    }
  }
  return {
    nodes: readNodes("sentinel.nodes", nodes, SENTINEL_PORT),
    sentinel: {
      name,
      username: username ?? undefined,
      password: password ?? undefined,
      tls: readTlsOption("sentinel.tls", tls),
    },
  }
}

/** `[{host, port}]` of nodes; a node may also be a string "host:port". */
function readNodes(option, nodes, defaultPort) {
  if (!Array.isArray(nodes) || nodes.length === 0) {
    throw optionError(`Option "${option}" must be a list of {host, port}, got ${kindOf(nodes)}.`)
  }
  return nodes.map((node, at) => {
    const said = typeof node === "string" ? readNode(node) : node
    const own = (field) => (said != null && Object.hasOwn(said, field) ? said[field] : undefined)
    const [host, port] = [own("host"), own("port")]
    const found = { host: host ?? "127.0.0.1", port: Number(port ?? defaultPort) }
    if (typeof found.host !== "string" || !Number.isInteger(found.port) || found.port < 1 || found.port > 65535) {
      const got = typeof node === "string" ? "a string that is neither" : kindOf(node)
      throw optionError(`Option "${option}[${at}]" must be {host, port} or "host:port", got ${got}.`)
    }
    return found
  })
}

/** "host:port", or redis:// with host and port only: the other options have the remaining settings. */
function readNode(text) {
  try {
    const url = new URL(/^\w+:\/\//.test(text) ? text : `redis://${text}`)
    const more = url.protocol !== "redis:" || url.username || url.password || url.search || !/^\/?$/.test(url.pathname)
    if (more) return { port: Number.NaN }
    return { host: url.hostname.replace(/^\[(.*)\]$/, "$1") || undefined, port: url.port || undefined }
  } catch {
    return { port: Number.NaN }
  }
}

module.exports = { readSettings, readNodes }
