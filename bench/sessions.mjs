import { createHash } from "node:crypto"

import session from "express-session"

const COUNT = 1000
const SEED_MS = 3_600_000

// The sessions of one size of a worker: their ids, and the expected value of each in Redis.
export class Sessions {
  constructor(bytes) {
    this.bytes = bytes
    this.ids = Array.from({ length: COUNT }, (_, index) => sessionId(bytes, index))
    this.values = sessionsOf(bytes)
    this.random = 0x2545f491
    this.expireIn(SEED_MS)
  }

  // Xorshift: the same order for every store, and cheaper than Math.random.
  pick() {
    let x = this.random
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.random = x
    return (x >>> 0) % COUNT
  }

  // The expiry of later writes, which identifies a write by its TTL.
  expireIn(ms) {
    const cookie = new session.Cookie({ maxAge: ms })
    for (const value of this.values) value.cookie = cookie
  }

  // A set writes a new value, so that a lost or reordered set shows when it is read back.
  renew(index) {
    const value = this.values[index]
    value.revision++
    return value
  }

  // Returns the fault of a reply, or undefined. Cheap, because it runs inside the measured loop.
  fault(index, got) {
    const want = this.values[index]
    if (
      got?.size === this.bytes &&
      got.user.id === want.user.id &&
      got.revision === want.revision &&
      got.items.length === want.items.length
    ) {
      return undefined
    }
    return new Error(`session ${index} of ${this.bytes} B was read back wrong: ${describe(got, want)}`)
  }
}

function describe(got, want) {
  if (!got) return "no session"
  return (
    `user ${got.user?.id}, ${got.size} B, revision ${got.revision}, ${got.items?.length} items instead of ` +
    `user ${want.user.id}, ${want.size} B, revision ${want.revision}, ${want.items.length} items`
  )
}

// Derived from the index, so that every worker has the same ids, in the form of express-session's.
function sessionId(bytes, index) {
  return createHash("sha256").update(`${bytes}/${index}`).digest("base64url").slice(0, 32)
}

function sessionsOf(bytes) {
  const cookie = new session.Cookie({ maxAge: SEED_MS })
  const room = bytes - JSON.stringify(sessionOf(0, bytes, cookie, [], "")).length
  const items = itemsOf(room)
  // Shared by all sessions of the size, because a thousand copies of 32 kB would measure the garbage collector.
  const used = JSON.stringify(sessionOf(0, bytes, cookie, items, "")).length
  const note = "n".repeat(Math.max(0, bytes - used))
  return Array.from({ length: COUNT }, (_, index) => sessionOf(index, bytes, cookie, items, note))
}

function sessionOf(index, size, cookie, items, note) {
  const user = { id: 100_000 + index, name: `User ${index}`, email: `user${index}@example.com`, admin: false }
  return { cookie, user, size, revision: 0, items, note }
}

function itemsOf(bytes) {
  const items = []
  for (let used = 0; ;) {
    const number = 10_000 + items.length
    const item = { sku: `SKU-${number}`, title: `Article number ${number}`, quantity: 1, price: 1999, gift: false }
    used += JSON.stringify(item).length + 1
    if (used > bytes) return items
    items.push(item)
  }
}
