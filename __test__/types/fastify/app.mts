// An application of @fastify/session, without express-session and its types.
import fastifyCookie from "@fastify/cookie"
import fastifySession from "@fastify/session"
import Fastify, { type Session } from "fastify"
import { RedisStore, type RedisStoreOptions, type RedisStoreSessionData } from "connect-redis-native"

declare module "fastify" {
  interface Session {
    user?: string
  }
}

type Is<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
export const notAny: [Is<RedisStore, any>, Is<RedisStoreSessionData, any>, Is<RedisStore["set"], any>] = [
  false,
  false,
  false,
]

const options: RedisStoreOptions = { url: "redis://localhost", ttl: (session) => session.cookie.originalMaxAge ?? 60 }
const store = new RedisStore<Session>({ client: {}, ttl: (session) => session.user?.length ?? 60 })
const secret = "a secret of at least 32 characters"
const app = Fastify()
app.register(fastifyCookie)
app.register(fastifySession, { secret, store })
app.register(fastifySession, { secret, store: new RedisStore(options) })
app.get("/", async (request) => {
  const found = await store.get(request.session.sessionId)
  await store.set(request.session.sessionId, request.session)
  return [found?.user?.toUpperCase(), await store.length(), found?.cookie.originalMaxAge]
})
store.on("ready", () => {}).emit("ready")

export class Traced extends RedisStore {
  override get(sid: string, callback?: (error?: any, session?: any) => void) {
    return super.get(sid, callback)
  }
}

// @ts-expect-error an event that does not exist
store.on("typo", () => {})
// @ts-expect-error an unknown member
void store.typo
// @ts-expect-error a session id is a string
void store.get(1)
// @ts-expect-error a session has a cookie
void new RedisStore(options).set("sid", {})
// @ts-expect-error a user is a text
void store.set("sid", { cookie: { originalMaxAge: 5 }, user: 5 })
// @ts-expect-error one of client, url, nodes and sentinel is required
void new RedisStore({})
