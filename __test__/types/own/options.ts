import { createSecretKey } from "node:crypto"

import {
  RedisStore,
  type RedisStoreEncryptionKey,
  type RedisStoreOptions,
  type RedisStoreSerializer,
} from "connect-redis-native"
import type { SessionData } from "express-session"

const url = process.env.REDIS_URL
const password = process.env.REDIS_PASSWORD
const tls = process.env.CA === undefined ? undefined : { ca: process.env.CA, cert: null, key: undefined }

const keys: readonly RedisStoreEncryptionKey[] = [{ id: "a", key: Buffer.alloc(32) }]

const serializer: RedisStoreSerializer = {
  parse: async (text) => JSON.parse(text) as SessionData,
  stringify: (session) => JSON.stringify(session),
}

export const all: RedisStoreOptions[] = [
  { client: {} },
  { client: undefined },
  { url },
  { url: null },
  { url: new URL("redis://localhost"), password, username: null, database: undefined, tls, clientName: "app" },
  { nodes: ["localhost:7000", { host: "localhost", port: 7001 }, { port: null }], password: null },
  { sentinel: { name: "mymaster", nodes: ["localhost"], username: undefined, password, tls: true } },
  { url, credentials: () => ({ password: "secret" }), tls: false },
  { url, credentials: async () => ({ username: undefined, password: "secret" }) },
  { url, prefix: null, ttl: null, disableTTL: null, disableTouch: null, serializer: null, scanCount: null },
  { url, connectTimeoutMs: null, commandTimeoutMs: null, maxPending: null, maxPendingBytes: undefined },
  {
    url,
    maxSessionBytes: 5,
    onDestroyed: "save",
    tagSessions: true,
    onConflict: "merge",
    touchAfter: 60,
    freshExpires: true,
  },
  { url, onConflict: (base, mine, theirs) => ({ ...base, ...theirs, ...mine }), maxLifetime: 3600 },
  { url, onConflict: async (_base, mine: SessionData) => mine, emitConnectionEvents: true, serializer },
  {
    url,
    userOf: (session) => (session.cookie.signed ? 7 : undefined),
    sessionInfo: (_session, req) => ({ ip: req?.ip }),
    maxSessionsPerUser: 3,
    userPrefix: "app:users:",
  },
  { url, userOf: () => null, sessionInfo: () => undefined, maxSessionsPerUser: { max: 3, onLimit: "reject" } },
  { url, userOf: (session: SessionData) => String(session.cookie.path), maxSessionsPerUser: null, userPrefix: null },
  { url, hashIds: true, encryption: { keys: [{ id: "a", key: "base64" }] }, compression: { minBytes: 1000 } },
  { url, hashIds: "migrate", encryption: { keys: async () => keys, plaintext: "reject" }, compression: null },
  { url, hashIds: "prepare" },
  { url, hashIds: null, encryption: { keys: Promise.resolve(keys), plaintext: null } },
  { url, encryption: { keys: () => keys, plaintext: "write" } },
  { url, encryption: { keys: [{ id: "a", key: createSecretKey(Buffer.alloc(32)) }] } },
  { client: {}, encryption: null },
  { url, ttl: (session) => (session.cookie.expires ? 60 : 3600) },
]
export const stores = all.map((options) => new RedisStore(options))

export function byFunction(options: RedisStoreOptions): RedisStore {
  return new RedisStore({ ...options, prefix: "app:" })
}

// @ts-expect-error a user is not an object
void new RedisStore({ url: "redis://localhost", userOf: () => ({}) })
// @ts-expect-error a rule that does not exist
void new RedisStore({ url: "redis://localhost", userOf: () => 1, maxSessionsPerUser: { max: 1, onLimit: "end" } })
// @ts-expect-error options are required
void new RedisStore()
// @ts-expect-error one of client, url, nodes and sentinel is required
void new RedisStore({})
// @ts-expect-error the same, with other options
void new RedisStore({ prefix: "app:", ttl: 60 })
// @ts-expect-error a Date is not a client
void new RedisStore({ client: new Date() })
// @ts-expect-error a URL is not a client
void new RedisStore({ client: "redis://localhost" })
// @ts-expect-error a promise of a client is not a client
void new RedisStore({ client: Promise.resolve({ get: () => null }) })
// @ts-expect-error a function is not a client
void new RedisStore({ client: () => ({ get: () => null }) })
// @ts-expect-error two sources
void new RedisStore({ url: "redis://localhost", nodes: ["localhost:7000"] })
// @ts-expect-error the client brings its own password
void new RedisStore({ client: {}, password: "secret" })
// @ts-expect-error an unknown option
void new RedisStore({ url: "redis://localhost", perfix: "app:" })
// @ts-expect-error an unknown option beside a client
void new RedisStore({ client: {}, host: "localhost" })
// @ts-expect-error seconds are a number
void new RedisStore({ client: {}, ttl: "soon" })
// @ts-expect-error a rule that does not exist
void new RedisStore({ url: "redis://localhost", onConflict: "ignore" })
// @ts-expect-error a serializer without parse
void new RedisStore({ client: {}, serializer: { stringify: JSON.stringify } })
// @ts-expect-error the factory takes express-session
void RedisStore({ client: {} })
// @ts-expect-error a session id is a string
void stores[0]!.get(1)
// @ts-expect-error a session has a cookie
void stores[0]!.set("sid", {})
// @ts-expect-error the callback of set is a function
void stores[0]!.set("sid", {} as SessionData, "callback")
