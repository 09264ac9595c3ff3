"use strict"

const tls = require("node:tls")

/**
 * Gives the binding the roots that Node trusts, once a process, if these settings need them: Rust reads
 * those of the system itself, which slim images lack.
 */
function giveRoots(binding, { tls: own, sentinel }) {
  if ([own, sentinel?.tls].some(needsRoots) && binding.needsRoots()) binding.giveRoots(nodeRoots())
}

const needsRoots = (settings) => settings?.rejectUnauthorized === true && settings.ca.length === 0

function nodeRoots() {
  // Node 22 has those of NODE_EXTRA_CA_CERTS and --use-system-ca among them.
  const roots = tls.getCACertificates?.("default") ?? tls.rootCertificates
  return [...(roots ?? [])]
}

module.exports = { giveRoots }
