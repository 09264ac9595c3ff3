"use strict"

const { RedisStoreError, timeoutError } = require("../errors.js")
const { inTime } = require("../timers.js")
const { isMarker, markerOf } = require("../races/marker.js")
const { isIndex } = require("../users/keys.js")
const { has, isCluster } = require("./dialects.js")
const { scanned, textOf } = require("./replies.js")

const SCAN_COUNT_MIN = 1000
const DELETE_KEYS = 1000

/** Operations on all keys of a store, by the client's own commands. */
class Keyspace {
  #client
  #dialect
  #commandTimeoutMs
  #ask
  #mark

  /** `ask(name, command, read)` runs a command of the client; `mark(marker)` writes a marker. */
  constructor(client, dialect, { commandTimeoutMs }, ask, mark) {
    this.#client = client
    this.#dialect = dialect
    this.#commandTimeoutMs = commandTimeoutMs
    this.#ask = ask
    this.#mark = mark
  }

  /** The servers that each hold a part of the keys: the masters of a cluster, or the client itself. */
  async servers() {
    const masters = this.#dialect.masters?.(this.#client)
    if (masters === undefined) return [this.#client]
    const late = () => timeoutError("The client did not list its masters", this.#commandTimeoutMs)
    const found = await inTime(masters, this.#commandTimeoutMs, late)
    if (found.length > 0) return found
    throw new RedisStoreError("ERR_REDIS_STORE_CONNECT", "The client knows no master of its cluster; connect it first.")
  }

  /**
   * The keys that start with `prefix`, in the form that the client's other commands accept. `others` is empty,
   * or a plus sign and the text that follows the prefix in keys of user indexes.
   */
  async find(prefix, others, count) {
    // Clients put their own prefix before keys, but not before patterns, and do not remove it from SCAN's keys.
    const own = keyPrefixOf(this.#client)
    const begin = own + prefix
    const pattern = `${begin.replace(/[*?[\]\\]/g, "\\$&")}*`
    const size = Math.max(count, SCAN_COUNT_MIN)
    const found = new Set()
    const add = (keys) => {
      for (const key of keys) {
        // A wrapper may put a namespace before the pattern and leave it on the keys.
        const at = key.indexOf(begin)
        if (at === -1) continue
        const name = key.slice(at)
        const isOther = others !== "" && isIndex(begin + others.slice(1), name)
        if (!isMarker(begin, name) && !isOther) found.add(name.slice(own.length))
      }
    }
    for (const server of await this.servers()) {
      if (this.#dialect.iterate === undefined) await this.#scan(server, pattern, size, add)
      else await this.#iterate(server, pattern, size, add)
    }
    return [...found]
  }

  async #scan(server, pattern, size, add) {
    let cursor = "0"
    do {
      const [next, keys] = await this.#ask(
        "scan",
        (done) => this.#dialect.scan(server, cursor, pattern, size, done),
        scanned,
      )
      add(keys)
      cursor = next
    } while (cursor !== "0")
  }

  /** One step of an iterator is one command. redis 4 yields keys, redis 5 and 6 lists of them. */
  async #iterate(server, pattern, size, add) {
    let steps
    const step = async () => {
      steps ??= this.#dialect.iterate(server, pattern, size)[Symbol.asyncIterator]()
      return steps.next()
    }
    const read = ({ done, value }) => (done ? undefined : [value].flat().map(textOf))
    for (;;) {
      const keys = await this.#ask("scan", step, read)
      if (keys === undefined) return
      add(keys)
    }
  }

  /** Removes all sessions that start with `prefix`. Requests that have loaded one before cannot write it back. */
  async clear(prefix, others, count) {
    const own = keyPrefixOf(this.#client)
    await this.#mark(markerOf(prefix, prefix, own))
    const keys = await this.find(prefix, others, count)
    let removed = 0
    for (let at = 0; at < keys.length; at += DELETE_KEYS) {
      const some = keys.slice(at, at + DELETE_KEYS)
      const marked = isCluster(this.#client) ? some : [prefix]
      const marking = Promise.all(marked.map((key) => this.#mark(markerOf(prefix, key, own))))
      if (this.#dialect.unordered) await marking
      removed += await this.#remove(some)
    }
    // For sessions that were loaded between two commands.
    if (removed > 0) await this.#mark(markerOf(prefix, prefix, own))
    return removed
  }

  async #remove(keys) {
    const remove = (some) => this.#ask("del", (done) => this.#dialect.del(this.#client, some, done), Number)
    try {
      return await remove(keys)
    } catch (error) {
      // A node that serves a whole cluster takes keys of one slot only.
      if (keys.length === 1 || error.cause?.code !== "CROSSSLOT") throw error
      const counts = await Promise.all(keys.map((key) => remove([key])))
      return counts.reduce((sum, count) => sum + count, 0)
    }
  }
}

/**
 * The prefix that the client itself puts before keys: ioredis and redis 6 by one name, redis 2 and 3 by another.
 * ioredis-mock is known by its `keyData`.
 */
function keyPrefixOf(client) {
  try {
    if ("connection_options" in client) return client.options.prefix ?? ""
    if ("_keyPrefix" in client) return client._keyPrefix ?? ""
    const isIoredis = "connector" in client || client.isCluster === true || "keyData" in client
    return (isIoredis && client.options.keyPrefix) || ""
  } catch {
    // A Proxy may hide it.
    return ""
  }
}

/** Checks whether the client answers: by PING, or by a GET if it has no PING. */
async function ping(client, servers, prefix, dialect, ask) {
  if (!has(client, "ping")) {
    // The key of a marker: no session has it.
    return ask("ping", (done) => dialect.get(client, markerOf(prefix, prefix, keyPrefixOf(client)), done), textOf)
  }
  const same = (reply) => reply
  return Promise.all((await servers()).map((server) => ask("ping", (done) => dialect.ping(server, done), same)))
}

module.exports = { Keyspace, keyPrefixOf, ping }
