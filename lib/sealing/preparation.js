"use strict"

const { OPERATIONS } = require("../operations.js")
const { Forwarding } = require("./forwarding.js")
const { HASH_UNITS, hashId, isAmbiguous } = require("./hash.js")
const { MOVING, Mover, added, isMiss } = require("./moving.js")

/** Every marker is ignored. */
const ALL_KNOWN = Number.MAX_SAFE_INTEGER
/** What was under the id was being moved, and is under its hash now. */
const MOVED = Symbol("moved")

/**
 * A backend whose keys have ids, where other processes move sessions to keys with hashes of them already: what is
 * under the hash counts, and a session is written where it is.
 */
class Preparation extends Forwarding {
  #sealing
  #mover

  constructor(backend, sealing, commandTimeoutMs) {
    super(backend, commandTimeoutMs)
    this.#sealing = sealing
    this.#mover = new Mover(sealing)
  }

  send(operation, key, value, number, request) {
    const hashed = hashedKeyOf(key, request)
    if (hashed === undefined) return this.to.send(operation, key, value, number, request)
    if (operation === OPERATIONS.set || operation === OPERATIONS.replace) {
      const atHash = (to, next) => to.send(OPERATIONS.replace, hashed, value, number, next)
      const session = { old: key, hashed, value, ttl: number, creates: operation === OPERATIONS.set, atHash }
      return this.#writing(session, request)
    }
    this.goOn(request, async (first, steps) => {
      const second = await steps.send(operation, hashed, value, number, steps.sealing)
      if (operation === OPERATIONS.get) return isMiss(second) ? bare(first) : second
      if (operation === OPERATIONS.pttl) return second === -2 ? first : second
      return number <= 0 ? first + second : Math.max(first, second)
    })
    this.to.send(operation, key, value, number, request)
  }

  /** Writes `session` where it is: under its hash by `atHash(backend, request)`, or else under its id. */
  #writing(session, request) {
    this.goOn(request, (reply, steps) => (reply === null ? this.#write(steps, session) : undefined))
    session.atHash(this.to, request)
  }

  /** Writes a session that was not under its hash. */
  async #write(steps, session) {
    const { old, creates, atHash, value } = session
    const sealed = steps.sealing === undefined ? value : this.#sealing.seal(old, value)
    for (;;) {
      const reply = await this.#overwrite(steps, session, sealed)
      if (reply === true) return true
      // Moved in between, or in neither place.
      const moved = await steps.ask(atHash, steps.sealing)
      if (moved !== null) return moved
      if (reply !== MOVED && !creates) return null
      if (reply !== MOVED && (await this.#create(steps, session, sealed))) return true
    }
  }

  /** Writes what is under the id, but not while it is being moved: true, MOVED or, if there is nothing, null. */
  async #overwrite(steps, { old, hashed, ttl }, sealed) {
    let stored = await steps.get(old)
    while (stored !== null) {
      if (stored.startsWith(MOVING)) {
        await this.#mover.move(steps, old, hashed)
        return MOVED
      }
      const reply = await steps.swap(old, stored, sealed, ttl)
      if (reply === undefined) return steps.send(OPERATIONS.replace, old, sealed, ttl)
      if (reply === true) return true
      stored = reply
    }
    return null
  }

  /** Writes a session that is in neither place, under its id. False if there is one by then. */
  async #create(steps, session, sealed) {
    const { old, hashed, ttl } = session
    const reply = await added(steps, { key: old, prefix: prefixOf(hashed), value: sealed, ttl, known: ALL_KNOWN })
    if (typeof reply === "string") return false
    if (reply !== true) await steps.send(OPERATIONS.set, old, sealed, ttl)
    await this.#settle(steps, session)
    return true
  }

  /** What was just written under the id is moved, if another process has the session under its hash by now. */
  async #settle(steps, { old, hashed, atHash }) {
    if (!(await steps.has(hashed))) return
    const moved = await steps.ask(atHash, steps.sealing)
    if (moved !== null) await this.#mover.move(steps, old, hashed)
  }

  byUser(operation, about, request) {
    if (operation === OPERATIONS.revoke) return this.#revoke(about, request)
    const { key } = about
    const hashed = key === undefined ? undefined : hashedKeyOf(key, request)
    if (hashed === undefined) return this.to.byUser(operation, about, request)
    const atHash = (to, next) => to.byUser(operation, { ...about, key: hashed }, next)
    const session = { old: key, hashed, value: about.value, ttl: about.ttl, creates: false, atHash }
    if (operation === OPERATIONS.signIn) return this.#signIn(session, about, request)
    this.goOn(request, async (reply, steps) => {
      if (reply !== null) return reply
      let isListed = 0
      const write = (to, next) => {
        isListed = true
        atHash(to, next)
      }
      const written = await this.#write(steps, { ...session, atHash: write })
      if (written !== true || isListed) return written
      return (await steps.byUser(OPERATIONS.entries, about)).length > 1 ? true : 0
    })
    atHash(this.to, request)
  }

  /** A sign-in is under the id, unless the session is there already and has been moved. */
  #signIn(session, about, request) {
    const { old, hashed, atHash } = session
    const rewritten = {
      ...session,
      creates: true,
      atHash: (to, next) => to.send(OPERATIONS.replace, hashed, about.value, about.ttl, next),
    }
    this.goOn(request, async (lives, steps) => {
      const moved = () => steps.ask(atHash, steps.sealing)
      if (lives !== -2) return moved()
      const stored = await steps.get(old)
      if (stored?.startsWith(MOVING)) {
        await this.#mover.move(steps, old, hashed)
        return moved()
      }
      if (stored !== null) {
        const { index, handle, ttl, text, limit } = about
        const count = await steps.byUser(OPERATIONS.index, { index, handle, ttl, text: `p:${text}`, limit })
        if (count > 0) await this.#write(steps, rewritten)
        return count
      }
      const count = await steps.byUser(OPERATIONS.signIn, about, steps.sealing)
      if (count > 0) await this.#settle(steps, rewritten)
      return count
    })
    this.to.send(OPERATIONS.pttl, hashed, "", 0, request)
  }

  /** As `destroy`: first under the ids. */
  #revoke(about, request) {
    const isHashed = ({ key, handle }) => key.endsWith(handle)
    const olds = about.items.filter((item) => !isHashed(item))
    if (olds.length === 0) return this.to.byUser(OPERATIONS.revoke, about, request)
    const [{ key: first }, ...others] = olds
    const { prefix } = about
    this.goOn(request, async (count, steps) => {
      const destroy = ({ key }) => steps.ask((to, next) => to.destroy(key, prefix, next))
      const counts = await Promise.all(others.map(destroy))
      const hashed = { ...about, items: about.items.filter(isHashed) }
      return [count, ...counts, await steps.byUser(OPERATIONS.revoke, hashed)].reduce((sum, each) => sum + each, 0)
    })
    this.to.destroy(first, prefix, request)
  }

  swap(key, base, value, ttl, request) {
    const at = (place) => (to, next) => to.swap(place, base, value, ttl, next)
    this.#comparing(key, request, at)
  }

  merge(key, { base, mine, theirs }, ttl, withinMs, request) {
    const texts = { base, mine, theirs: bare(theirs) }
    const at = (place) => (to, next) => to.merge(place, texts, ttl, withinMs, next)
    this.#comparing(key, request, at)
  }

  /** Does `at(key)` where the session is. */
  #comparing(old, request, at) {
    const hashed = hashedKeyOf(old, request)
    if (hashed === undefined) return at(old)(this.to, request)
    this.goOn(request, (reply, steps) => (reply === null ? this.#compare(steps, old, hashed, at) : undefined))
    at(hashed)(this.to, request)
  }

  async #compare(steps, old, hashed, at) {
    for (;;) {
      const reply = await steps.ask(at(old))
      const isMoving = typeof reply === "string" && reply.startsWith(MOVING)
      if (reply !== null && !isMoving) return reply
      if (isMoving) await this.#mover.move(steps, old, hashed)
      const moved = await steps.ask(at(hashed))
      if (moved !== null || !isMoving) return moved
    }
  }

  /** Both keys have markers, as other processes know one of them each. */
  destroy(key, prefix, request) {
    const hashed = hashedKeyOf(key, request)
    if (hashed !== undefined) {
      this.goOn(request, async (removed, steps) => {
        return removed + (await steps.ask((to, next) => to.destroy(hashed, prefix, next)))
      })
    }
    this.to.destroy(key, prefix, request)
  }

  restore(operation, key, prefix, value, ttl, known, _also, request) {
    const hashed = hashedKeyOf(key, request)
    const restore = (to, next) => to.restore(operation, key, prefix, value, ttl, known, hashed ?? "", next)
    if (hashed === undefined) return restore(this.to, request)
    const atHash = (to, next) => {
      to.restore(
        operation,
        hashed,
        prefix,
        this.#sealing.seal(hashed, this.#sealing.open(key, value)),
        ttl,
        known,
        "",
        next,
      )
    }
    const marker = (to, next) => to.restore(OPERATIONS.marker, hashed, prefix, "", -1, known, "", next)
    this.goOn(request, async (found, steps) => {
      if (found !== true) return found
      if (await steps.has(hashed)) return steps.ask(atHash)
      const reply = await steps.ask(restore)
      if (reply === true) {
        // Where one script could not name both markers.
        const since = await steps.ask(marker)
        if (since !== true) return this.#undo(steps, key, value, { hashed, prefix, since })
      }
      const isMoving = typeof reply === "string" && reply.startsWith(MOVING)
      if (!isMoving && (reply !== true || !(await steps.has(hashed)))) return reply
      // Others have it under its hash by now.
      const moved = isMoving ? undefined : await steps.ask(atHash)
      await this.#mover.move(steps, key, hashed)
      return isMoving ? steps.ask(atHash) : moved
    })
    marker(this.to, request)
  }

  /** Removes a session that was written under its id after a logout, wherever a move has put it meanwhile. */
  async #undo(steps, key, value, { hashed, prefix, since }) {
    let left = value
    while (typeof left === "string") left = await steps.remove(key, left)
    await steps.ask((to, next) => to.destroy(hashed, prefix, next))
    return since
  }
}

/** The key that a session of `request` has by the hash of its id; undefined where `key` has no id. */
function hashedKeyOf(key, { sid }) {
  if (sid === undefined) return undefined
  const name = String(sid)
  // Its key has its hash from the start.
  if (isAmbiguous(name)) return undefined
  return key.slice(0, key.length - name.length) + hashId(name)
}

function prefixOf(hashed) {
  return hashed.slice(0, hashed.length - HASH_UNITS)
}

/** What is stored, without the mark of a move: it is compared with what is moved. */
function bare(stored) {
  return typeof stored === "string" && stored.startsWith(MOVING) ? stored.slice(MOVING.length) : stored
}

module.exports = { Preparation }
