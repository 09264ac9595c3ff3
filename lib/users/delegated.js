"use strict"

const { isRefusal } = require("../races/gone.js")
const { NONE_KNOWN } = require("../races/marker.js")
const { SCRIPTS } = require("./scripts.js")

/**
 * The operations of src/users/flow.rs by the commands of a client. Each function of `ask` runs one command and
 * returns a promise of its reply: `script(text, keys, args)`, `replace(key, value, ttl)`, `set(key, value,
 * ttl)`, `restore(operation, key, prefix, value, ttl, known)` and `destroy(key, prefix)`.
 */
const OPERATIONS = {
  index: (ask, about) => enter(ask, about, about.text),
  signIn: (ask, about) => (ask.isCluster || about.byTurns ? signInByTurns(ask, about) : signInAtOnce(ask, about)),
  async save(ask, { index, handle, ttl, key, value }) {
    const [written, found] = await Promise.all([
      ask.replace(key, value, ttl),
      ask.script(SCRIPTS.entries, [index], [handle]),
    ])
    if (written === null) return null
    return found.length > 1 ? true : 0
  },
  async entries(ask, { index, handle }) {
    const found = await ask.script(SCRIPTS.entries, [index], handle === undefined ? [] : [handle])
    return found.map(String)
  },
  async revoke(ask, { index, prefix, items }) {
    const outcomes = await Promise.allSettled(items.map(({ key }) => ask.destroy(key, prefix)))
    const gone = items.filter((_item, at) => outcomes[at].status === "fulfilled")
    await OPERATIONS.remove(ask, { index, items: gone }).catch(() => {})
    const failed = outcomes.find(({ status }) => status === "rejected")
    if (failed !== undefined) throw failed.reason
    return outcomes.reduce((sum, { value }) => sum + value, 0)
  },
  async remove(ask, { index, items }) {
    if (items.length === 0) return 0
    const args = items.flatMap(({ handle, entry }) => [handle, entry])
    return Number(await ask.script(SCRIPTS.remove, [index], args))
  },
  async renew(ask, { index, handle, entry, renewed }) {
    return Number(await ask.script(SCRIPTS.renew, [index], [handle, entry, renewed]))
  },
  async sweep(ask, { index, whole, pending }) {
    return Number(await ask.script(SCRIPTS.sweep, [index], [whole, pending].map(String)))
  },
}

/** No limit, and a limit that the script only counts for. */
const LIMITS = { "-1": "", "-2": "counted" }

function argsOf({ handle, ttl, limit }, text, ...more) {
  return [handle, ttl < 0 ? "" : String(ttl), LIMITS[limit] ?? String(limit), text, ...more]
}

async function enter(ask, about, text) {
  return Number(await ask.script(SCRIPTS.index, [about.index], argsOf(about, text)))
}

async function signInAtOnce(ask, about) {
  const { index, key, value, text } = about
  return Number(await ask.script(SCRIPTS.signIn, [index, key], argsOf(about, `a:${text}`, value)))
}

async function signInByTurns(ask, about) {
  const { key, prefix, value, ttl, ignoresMarkers } = about
  const before = ignoresMarkers ? null : await unlessRefused(ask.restore("marker", key, prefix, "", -1, NONE_KNOWN))
  const count = await enter(ask, about, `p:${about.text}`)
  if (count === 0) return 0
  const known = Array.isArray(before) ? before[1] : NONE_KNOWN
  const reply = ignoresMarkers ? null : await unlessRefused(ask.restore("restore", key, prefix, value, ttl, known))
  if (Array.isArray(reply)) return -1
  // The marker is in another slot, or access to it is denied.
  if (reply === null) await ask.set(key, value, ttl)
  return count
}

/** Null if the server denies a command or its keys. */
async function unlessRefused(promise) {
  try {
    return await promise
  } catch (error) {
    if (isRefusal(error)) return null
    throw error
  }
}

/** Runs an operation and returns a promise of its reply. */
function delegated(operation, ask, about) {
  return OPERATIONS[operation](ask, about)
}

module.exports = { delegated }
