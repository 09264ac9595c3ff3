import { RedisStore } from "connect-redis-native"
import Koa from "koa"
import session from "koa-session"

const DAY_MS = 24 * 60 * 60 * 1000

// koa-session stores the lifetime of a session in `_maxAge`, in milliseconds.
const store = new RedisStore({
  url: process.env.REDIS_URL ?? "redis://localhost:6379",
  prefix: "koa:",
  ttl: (data) => (data._maxAge ?? DAY_MS) / 1000,
})
store.on("error", (error) => console.error(error.code, error.message))

const app = new Koa({ keys: [process.env.SESSION_SECRET ?? "change me"] })

app.use(async (ctx, next) => {
  try {
    await next()
  } catch (error) {
    ctx.status = error.code?.startsWith("ERR_REDIS_STORE_") ? 503 : (error.status ?? 500)
    ctx.body = { code: error.code ?? "error" }
  }
})

// koa-session passes options where the store expects a callback, so each method is wrapped.
app.use(
  session(
    {
      maxAge: DAY_MS,
      store: {
        get: (id) => store.get(id),
        set: (id, data) => store.set(id, data),
        destroy: (id) => store.destroy(id),
      },
    },
    app,
  ),
)

const routes = {
  "GET /"(ctx) {
    ctx.session.visits = (ctx.session.visits ?? 0) + 1
    ctx.body = { visits: ctx.session.visits, user: ctx.session.user ?? null }
  },

  async "POST /sign-in"(ctx) {
    // A new id at sign-in, so that an id planted before the sign-in is worthless.
    await ctx.session.regenerate()
    ctx.session.user = String(ctx.query.name ?? "guest")
    ctx.body = { user: ctx.session.user }
  },

  "POST /sign-out"(ctx) {
    ctx.session = null
    ctx.body = {}
  },
}
app.use((ctx) => routes[`${ctx.method} ${ctx.path}`]?.(ctx))

const listener = app.listen(process.env.PORT ?? 3000, () => {
  console.log(`Open http://localhost:${listener.address().port}`)
})

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    listener.close(() => store.close())
    listener.closeIdleConnections()
  })
}
