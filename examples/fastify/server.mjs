import cookie from "@fastify/cookie"
import session from "@fastify/session"
import { RedisStore } from "connect-redis-native"
import Fastify from "fastify"

const store = new RedisStore({ url: process.env.REDIS_URL ?? "redis://localhost:6379" })
store.on("error", (error) => console.error(error.code, error.message))

const app = Fastify()
app.register(cookie)
app.register(session, {
  store,
  secret: process.env.SESSION_SECRET ?? "change me: 32 characters or more",
  saveUninitialized: false,
  cookie: { secure: false, maxAge: 60 * 60 * 1000 },
})

app.get("/", async (request) => {
  request.session.visits = (request.session.visits ?? 0) + 1
  return { visits: request.session.visits, user: request.session.user ?? null }
})

app.post("/sign-in", async (request) => {
  // A new id at sign-in, so that an id planted before the sign-in is worthless. The list names what is kept.
  await request.session.regenerate(["visits"])
  request.session.user = String(request.body?.name ?? "guest")
  return { user: request.session.user }
})

app.post("/sign-out", async (request) => {
  await request.session.destroy()
  return {}
})

app.setErrorHandler((error, _request, reply) => {
  const isStore = error.code?.startsWith("ERR_REDIS_STORE_")
  return reply.status(isStore ? 503 : (error.statusCode ?? 500)).send({ code: error.code ?? "error" })
})
app.addHook("onClose", () => store.close())

await app.listen({ port: Number(process.env.PORT ?? 3000), host: "localhost" })
console.log(`Open http://localhost:${app.server.address().port}`)

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => app.close())
