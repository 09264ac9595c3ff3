"use strict"

const { kindOf, optionError } = require("../errors.js")

const KNOWN = ["ca", "cert", "key", "servername", "rejectUnauthorized"]

/** The option `tls` of `owner`, checked: undefined for a plain connection. */
function readTlsOption(owner, value) {
  if (value == null || value === false) return undefined
  if (value === true) return readTls({})
  if (typeof value !== "object" || Array.isArray(value)) {
    throw optionError(`Option "${owner}" must be true or an object of TLS options, got ${kindOf(value)}.`)
  }
  for (const name of Object.keys(value)) {
    if (!KNOWN.includes(name)) {
      throw optionError(`Option "${owner}.${name}" is unknown; known are ${KNOWN.join(", ")}.`)
    }
  }
  const { cert, key } = ownOf(value)
  if ((cert == null) !== (key == null)) {
    throw optionError(`Option "${owner}" needs cert and key together, got one of them.`)
  }
  return readTls(value)
}

/** Node's TLS options, as far as they concern a client; PEM as text. */
function readTls(given) {
  const options = ownOf(given)
  return {
    ca: list(options.ca).map(String),
    cert: text(options.cert),
    key: text(options.key),
    servername: options.servername || undefined,
    rejectUnauthorized: rejectsUnauthorized(options),
  }
}

/** Node's rule: the variable counts where the option is not there at all. */
function rejectsUnauthorized(options) {
  if ("rejectUnauthorized" in options) return options.rejectUnauthorized !== false
  return process.env.NODE_TLS_REJECT_UNAUTHORIZED !== "0"
}

/** As tls.connect() copies them: settings that are inherited do not count. */
const ownOf = (options) => ({ __proto__: null, ...options })

const list = (value) => (value == null ? [] : Array.isArray(value) ? value : [value])
const text = (value) => (value == null ? undefined : list(value).map(String).join("\n"))

module.exports = { readTls, readTlsOption }
