"use strict"

const tls = require("node:tls")

/**
 * Passes the roots that Node trusts to the binding, once per process, if these settings need them. Rust reads
 * the system's roots itself, but slim images have none.
 */
function giveRoots(binding, { tls: own, sentinel }) {
  if ([own, sentinel?.tls].some(needsRoots) && binding.needsRoots()) binding.giveRoots(nodeRoots())
}

const needsRoots = (settings) => settings?.rejectUnauthorized === true && settings.ca.length === 0

function nodeRoots() {
  // In Node 22 they include those of NODE_EXTRA_CA_CERTS and --use-system-ca.
  const roots = tls.getCACertificates?.("default") ?? tls.rootCertificates
  return [...(roots ?? [])]
}

module.exports = { giveRoots }
