import { scryptSync, timingSafeEqual } from "node:crypto"

import { RedisStore } from "connect-redis-native"
import express from "express"
import session from "express-session"
import passport from "passport"
import { Strategy } from "passport-local"

const store = new RedisStore({ url: process.env.REDIS_URL ?? "redis://localhost:6379" })
store.on("error", (error) => console.error(error.code, error.message))

// In a real app the users are in a database.
const USERS = [user(1, "ada", "engine"), user(2, "grace", "compiler")]

function user(id, name, password) {
  return { id, name, hash: scryptSync(password, `salt of ${name}`, 32) }
}

passport.use(
  new Strategy((name, password, done) => {
    const found = USERS.find((user) => user.name === name)
    const hash = scryptSync(password, `salt of ${name}`, 32)
    done(null, found && timingSafeEqual(found.hash, hash) ? found : false)
  }),
)
// The session holds the id of the user, not the user.
passport.serializeUser((user, done) => done(null, user.id))
passport.deserializeUser((id, done) => done(null, USERS.find((user) => user.id === id) ?? false))

const app = express()
app.use(
  session({ store, secret: process.env.SESSION_SECRET ?? "change me", resave: false, saveUninitialized: false }),
  express.json(),
  express.urlencoded({ extended: false }),
  passport.session(),
)

app.get("/", (req, res) => {
  res.json({ user: req.user?.name ?? null, cart: req.session.cart ?? [] })
})

app.post("/cart", (req, res) => {
  req.session.cart = [...(req.session.cart ?? []), String(req.body?.item ?? "book")]
  res.json({ cart: req.session.cart })
})

// Passport takes a new session id at sign-in; keepSessionInfo keeps the cart.
app.post("/sign-in", passport.authenticate("local", { keepSessionInfo: true }), (req, res) => {
  res.json({ user: req.user.name })
})

app.post("/sign-out", (req, res, next) => {
  req.logout((error) => (error ? next(error) : res.json({})))
})

app.use((error, _req, res, _next) => {
  const status = error.code?.startsWith("ERR_REDIS_STORE_") ? 503 : (error.status ?? 500)
  res.status(status).json({ code: error.code ?? "error" })
})

const listener = app.listen(process.env.PORT ?? 3000, () => {
  console.log(`Open http://localhost:${listener.address().port}`)
})

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    listener.close(() => store.close())
    listener.closeIdleConnections()
  })
}
