"use strict"

const { readTls } = require("../options/tls.js")
const { DEFAULT_PORT, readUrl } = require("../options/url.js")

function address({ host, port, path }) {
  const node = path ? { path: String(path) } : { host: host || "localhost", port: Number(port || DEFAULT_PORT) }
  return { nodes: [node] }
}

/** 4 or 6. Clients also accept 0, text and "IPv6". */
function familyOf(value) {
  const [digit] = /[46]$/.exec(String(value ?? "")) ?? []
  return digit && Number(digit)
}

const tlsOf = (value) => (value ? readTls(value === true ? {} : value) : undefined)

/** A URL as clients read it: they ignore parameters, and ioredis accepts a URL without a scheme. */
function urlOf(text) {
  const [url] = text.split("?")
  return readUrl(/^\w+:\/\//.test(url) ? url : `redis://${url.replace(/^\/\//, "")}`)
}

module.exports = { address, familyOf, tlsOf, urlOf }
