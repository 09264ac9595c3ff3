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
      throw optionError(`Option "${owner}.${name}" is unknown; the known options are ${KNOWN.join(", ")}.`)
    }
  }
  const { cert, key } = ownOf(value)
  if ((cert == null) !== (key == null)) {
    throw optionError(`Option "${owner}" needs cert and key together, got one of them.`)
  }
  return readTls(value)
}

/** Node's TLS options that concern a client; PEM as text. */
function readTls(given) {
  const options = ownOf(given)
  return {
    ca: list(options.ca).filter(isSet).map(pem),
    ...clientCertificate(options),
    servername: options.servername || undefined,
    rejectUnauthorized: rejectsUnauthorized(options),
  }
}

/** As in Node, the environment variable counts only if the option is absent. */
function rejectsUnauthorized(options) {
  if ("rejectUnauthorized" in options) return options.rejectUnauthorized !== false
  return process.env.NODE_TLS_REJECT_UNAUTHORIZED !== "0"
}

/** As tls.connect() copies them: inherited settings do not count. */
const ownOf = (options) => ({ __proto__: null, ...options })

/** A certificate without a key, or a key without a certificate, is ignored. */
function clientCertificate({ cert, key }) {
  const [certs, keys] = [cert, key].map((value) => list(value).filter(isSet).map(pem).join("\n"))
  return certs !== "" && keys !== "" ? { cert: certs, key: keys } : { cert: undefined, key: undefined }
}

/** Node ignores an empty text. */
const isSet = (value) => value != null && value.length !== 0
const pem = (value) =>
  (ArrayBuffer.isView(value) ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value).toString()
const list = (value) => (value == null ? [] : Array.isArray(value) ? value : [value])

module.exports = { readTls, readTlsOption }
