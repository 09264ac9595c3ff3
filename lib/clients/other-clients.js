"use strict"

const { readNodes } = require("../options/settings.js")
const { readTls } = require("../options/tls.js")
const { DEFAULT_PORT } = require("../options/url.js")
const { address, familyOf } = require("./address.js")
const { current, observe } = require("./renewal.js")

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
    // A user name without a password is not sent.
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
    // A user name without a password is not sent.
    credentials: () => {
      const found = current(client, said())
      return found.password ? found : {}
    },
  }
}

/** Recognized by a method that only the cluster client has. */
function isGlideCluster(client) {
  return typeof client.fcallWithRoute === "function"
}

module.exports = { callbackRedis, isGlideCluster, valkeyGlide }
