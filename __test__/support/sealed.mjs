// Options that seal, and what they make of ids.
import { createHash } from "node:crypto"

export const key = (id, byte) => ({ id, key: Buffer.alloc(32, byte) })
export const KEYS = [key("new", 2), key("old", 1)]

/** All that keeps a stolen Redis from giving sessions away. */
export const SEALED = { hashIds: true, encryption: { keys: KEYS, plaintext: "reject" }, compression: { minBytes: 100 } }

/** The same with every option that compares what is stored. */
export const EVERYTHING = { ...SEALED, onConflict: "merge", maxLifetime: 30 * 86_400, touchAfter: 1 }

export const handleOf = (sid) => createHash("sha256").update(sid).digest("base64url")
