// APIs that accept a store: express-session, @fastify/session, NestJS, connect, Socket.IO, event emitters.
import { EventEmitter, once } from "node:events"
import fastifyCookie from "@fastify/cookie"
import fastifySession, { type SessionStore } from "@fastify/session"
import express from "express"
import session, { Store, type SessionData, type SessionOptions } from "express-session"
import Fastify from "fastify"
import { Server } from "socket.io"
import { RedisStore } from "connect-redis"

declare const client: any

export const store = new RedisStore({ client, prefix: "app:" })
export const stores: Store[] = [store, new RedisStore({ client: client as any })]
export const emitter: EventEmitter = store
export const options: SessionOptions = { store, secret: "secret", resave: false, saveUninitialized: false }

const app = express()
app.use(session({ store: new RedisStore({ client }), secret: "secret" }))
app.get("/", (req, res, next) => {
  req.session.cookie.maxAge = 60_000
  req.sessionStore.get(req.sessionID, (error, found) => (error ? next(error) : res.json(found)))
  req.sessionStore.destroy(req.sessionID, next)
  store.all((error, all) => (error ? next(error) : res.json(all)))
})

const fastify = Fastify()
fastify.register(fastifyCookie)
fastify.register(fastifySession, { store, secret: "a secret of at least 32 characters" })
const fastifyStore: SessionStore = new RedisStore({ client })
fastify.register(fastifySession, { store: fastifyStore, secret: "a secret of at least 32 characters" })

export async function nest(module: any): Promise<void> {
  const { NestFactory } = await import("@nestjs/core")
  const nest = await NestFactory.create(module)
  nest.use(session({ store: new RedisStore({ client }), secret: "secret", resave: false, saveUninitialized: false }))
}

export class SessionModule {
  static readonly provider = {
    provide: RedisStore,
    useFactory: (client: any): RedisStore => new RedisStore({ client }),
  }
}

new Server().engine.use(session({ store, secret: "secret" }))

export async function events(): Promise<void> {
  store.on("connect", () => {}).on("disconnect", () => {})
  store.once("error", (error) => void error)
  await once(store, "connect")
  store.removeAllListeners("connect")
  store.emit("disconnect")
  void [store.listenerCount("connect"), store.setMaxListeners(20), store.eventNames()]
  store.load("sid", (error, found?: SessionData) => void [error, found])
}
