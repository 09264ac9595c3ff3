"use strict"

const { OPERATIONS } = require("../operations.js")
const { Forwarding } = require("./forwarding.js")
const { HASH_UNITS, isAmbiguous } = require("./hash.js")
const { Mover, isMiss } = require("./moving.js")

/**
 * A backend whose keys have hashes of ids, in front of one that may still hold sessions under the ids
 * themselves: a session that is asked for under its hash is moved there, and a write leaves no other key.
 */
class Migration extends Forwarding {
  #sealing
  #mover

  constructor(backend, sealing, commandTimeoutMs) {
    super(backend, commandTimeoutMs)
    this.#sealing = sealing
    this.#mover = new Mover(sealing)
  }

  send(operation, key, value, number, request) {
    const old = plainKeyOf(key, request)
    if (old === undefined || operation === OPERATIONS.replace) {
      return this.to.send(operation, key, value, number, request)
    }
    if (operation === OPERATIONS.expire && number <= 0) {
      // In this order: what is moved in between is removed too.
      this.goOn(request, async (first, steps) => first + (await steps.expire(key, 0)))
      return this.to.send(operation, old, "", 0, request)
    }
    if (operation === OPERATIONS.get) {
      this.goOn(request, (reply, steps) => (isMiss(reply) ? this.#find(steps, old, key) : undefined))
    } else if (operation === OPERATIONS.pttl) {
      this.goOn(request, (reply, steps) => (reply === -2 ? livesOf(steps, old, key) : undefined))
    } else if (operation === OPERATIONS.set) this.#removing(old, request, () => true)
    else {
      this.goOn(request, (count, steps) => (count === 0 ? this.#touch(steps, old, key, number) : undefined))
    }
    this.to.send(operation, key, value, number, request)
  }

  /** What is under `key` once what is under `old` is moved there: its text where the backend opens it. */
  async #find(steps, old, key) {
    const stored = await this.#mover.move(steps, old, key)
    return stored === null || steps.sealing === undefined ? stored : this.#sealing.open(key, stored)
  }

  async #touch(steps, old, key, ms) {
    if ((await this.#mover.move(steps, old, key)) === null) return 0
    return steps.expire(key, ms)
  }

  /** Removes what is under the id once `request` is answered, if `isWritten(reply)`. */
  #removing(old, request, isWritten) {
    const removed = async (reply, steps) => {
      await steps.expire(old, 0)
      return reply
    }
    this.goOn(request, (reply, steps) => (isWritten(reply) ? removed(reply, steps) : undefined))
  }

  /** Moves the session of `request`, whatever is under `key`; the reply is what is stored there then, or null. */
  move(key, request) {
    const old = plainKeyOf(key, request)
    this.goOn(request, (_reply, steps) => this.#mover.move(steps, old, key))
    this.to.send(OPERATIONS.pttl, old, "", 0, request)
  }

  /** There is nothing under `key`. What others have written under the id meanwhile is moved there before. */
  restore(operation, key, prefix, value, ttl, known, also, request) {
    const old = plainKeyOf(key, request)
    const restore = (to, next) => to.restore(operation, key, prefix, value, ttl, known, also, next)
    if (old === undefined) return restore(this.to, request)
    this.goOn(request, async (lives, steps) => {
      if (lives !== -2) await this.#mover.move(steps, old, key)
      return steps.ask(restore)
    })
    this.to.send(OPERATIONS.pttl, old, "", 0, request)
  }

  byUser(operation, about, request) {
    if (operation === OPERATIONS.revoke) return this.#revoke(about, request)
    const old = about.key === undefined ? undefined : plainKeyOf(about.key, request)
    if (old !== undefined && operation === OPERATIONS.signIn) this.#removing(old, request, (count) => count > 0)
    if (old !== undefined && operation === OPERATIONS.save) this.#removing(old, request, (reply) => reply !== null)
    this.to.byUser(operation, about, request)
  }

  /** As `destroy`. */
  #revoke(about, request) {
    const { prefix, items } = about
    const isHashed = ({ key, handle }) => key.endsWith(handle)
    const olds = items.filter((item) => !isHashed(item))
    if (olds.length === 0) return this.to.byUser(OPERATIONS.revoke, about, request)
    const handles = new Set(olds.map(({ handle }) => handle))
    const hashed = items.filter(isHashed)
    const [{ key: first }, ...others] = hashed.filter(({ handle }) => handles.has(handle))
    this.goOn(request, async (count, steps) => {
      const marked = await Promise.all(others.map(({ key }) => steps.ask((to, next) => to.destroy(key, prefix, next))))
      const plain = await Promise.all(olds.map(({ key }) => steps.expire(key, 0)))
      const last = await steps.byUser(OPERATIONS.revoke, { ...about, items: hashed })
      return [count, ...marked, ...plain, last].reduce((sum, each) => sum + each, 0)
    })
    this.to.destroy(first, prefix, request)
  }

  /**
   * Under the hash, under the id, and under the hash again. A save under the id finds the first marker after its
   * write, or the write is removed; a move from the id finds the second marker, or what it adds is removed.
   */
  destroy(key, prefix, request) {
    const old = plainKeyOf(key, request)
    const destroy = (to, next) => to.destroy(key, prefix, next)
    if (old !== undefined) {
      this.goOn(request, async (removed, steps) => {
        // Without a marker: that would show the id.
        const plain = await steps.expire(old, 0)
        return removed + plain + (await steps.ask(destroy))
      })
    }
    destroy(this.to, request)
  }
}

/** How long a session lives that was not under `key`. */
async function livesOf(steps, old, key) {
  const lives = await steps.pttl(old)
  // Moved in between.
  return lives === -2 ? steps.pttl(key) : lives
}

/** The key that a session of `request` had by its id; undefined where `key` is not that of its hash. */
function plainKeyOf(key, { sid }) {
  if (sid === undefined) return undefined
  const name = String(sid)
  if (isAmbiguous(name)) return undefined
  return key.slice(0, key.length - HASH_UNITS) + name
}

module.exports = { Migration }
