import { randomBytes } from "node:crypto"

import express from "express"
import session from "express-session"

import { page } from "./page.mjs"

const HOUR_MS = 60 * 60 * 1000

/** An Express 5 app with sign-in and a visit counter, whose sessions are in `store`. */
export function createApp({ store, redis }) {
  const app = express()
  // Before the session middleware, so that a health check creates no session.
  app.get("/health", (_req, res) => {
    store.ping((error) => res.status(error ? 503 : 200).json({ redis: error ? error.code : "ok" }))
  })
  app.use(
    session({
      store,
      secret: process.env.SESSION_SECRET ?? randomBytes(32).toString("hex"),
      resave: false,
      saveUninitialized: false,
      rolling: true,
      cookie: { maxAge: HOUR_MS, sameSite: "lax" },
    }),
  )

  app.get("/", async (req, res) => {
    req.session.visits = (req.session.visits ?? 0) + 1
    const sessions = await store.length()
    res.send(page({ id: req.sessionID, session: req.session, sessions, redis, native: store.native }))
  })

  app.post("/sign-in", express.urlencoded({ extended: false }), (req, res, next) => {
    const name = String(req.body?.name ?? "").trim()
    // A new id at sign-in, so that an id planted before the sign-in is worthless.
    req.session.regenerate((error) => {
      if (error) return next(error)
      if (name !== "") req.session.user = name.slice(0, 40)
      res.redirect(303, "/")
    })
  })

  app.post("/sign-out", (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.redirect(303, "/")))
  })

  app.use((error, _req, res, _next) => {
    const status = error.code?.startsWith("ERR_REDIS_STORE_") ? 503 : (error.status ?? 500)
    res.status(status).send(page({ error: { status, code: error.code ?? "error" }, redis }))
  })
  return app
}
