import { randomBytes } from "node:crypto"

import { RedisStore } from "connect-redis-native"
import express from "express"
import session from "express-session"

import { devicesPage, errorPage, signInPage } from "./pages.mjs"

const DAY_MS = 24 * 60 * 60 * 1000
const PASSWORD = "open sesame"

const store = new RedisStore({
  url: process.env.REDIS_URL ?? "redis://localhost:6379",
  prefix: "devices:",
  userOf: (session) => session.user,
  sessionInfo: (session, req) => ({ ip: req?.ip, agent: String(req?.get("user-agent") ?? "").slice(0, 200) }),
})
store.on("error", (error) => console.error(error.code, error.message))

const app = express()
app.use(
  session({
    store,
    secret: process.env.SESSION_SECRET ?? randomBytes(32).toString("hex"),
    resave: false,
    saveUninitialized: false,
    rolling: true,
    // Lax: a form on another site cannot sign users out.
    cookie: { maxAge: DAY_MS, sameSite: "lax" },
  }),
  express.urlencoded({ extended: false }),
)

app.post("/sign-in", (req, res, next) => {
  const name = String(req.body?.name ?? "").trim()
  // In a real app the users and their hashed passwords are in a database.
  if (name === "" || req.body?.password !== PASSWORD) return res.status(403).send(signInPage({ isWrong: true }))
  // A new id at sign-in, so that an id planted before the sign-in is worthless.
  req.session.regenerate((error) => {
    if (error) return next(error)
    req.session.user = name.slice(0, 40)
    res.redirect(303, "/")
  })
})

/** All routes below require a signed-in user. */
app.use((req, res, next) => {
  if (req.session.user === undefined) res.status(401).send(signInPage({}))
  else next()
})

app.get("/", async (req, res) => {
  const { user } = req.session
  const devices = await store.sessionsOf(user, { current: req.sessionID })
  res.send(devicesPage({ user, devices }))
})

app.post("/sign-out", (req, res, next) => {
  req.session.destroy((error) => (error ? next(error) : res.redirect(303, "/")))
})

app.post("/devices/sign-out-others", async (req, res) => {
  await store.destroyUser(req.session.user, { except: req.sessionID })
  res.redirect(303, "/")
})

app.post("/devices/:handle/sign-out", async (req, res) => {
  await store.destroyHandle(req.session.user, req.params.handle)
  res.redirect(303, "/")
})

app.use((error, _req, res, _next) => {
  const status = error.code?.startsWith("ERR_REDIS_STORE_") ? 503 : (error.status ?? 500)
  res.status(status).send(errorPage({ status, code: error.code ?? "error" }))
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
