import { createServer } from "node:http"

import { RedisStore } from "connect-redis-native"
import express from "express"
import session from "express-session"
import { Server } from "socket.io"

const store = new RedisStore({ url: process.env.REDIS_URL ?? "redis://localhost:6379" })
store.on("error", (error) => console.error(error.code, error.message))

const sessions = session({
  store,
  secret: process.env.SESSION_SECRET ?? "change me",
  resave: false,
  saveUninitialized: false,
})

const app = express()
const listener = createServer(app)
const io = new Server(listener)

app.get("/", (_req, res) => res.sendFile("page.html", { root: import.meta.dirname }))
app.use(sessions, express.json())

app.get("/me", (req, res) => {
  res.json({ user: req.session.user ?? null, messages: req.session.messages ?? 0 })
})

app.post("/sign-in", (req, res, next) => {
  req.session.regenerate((error) => {
    if (error) return next(error)
    req.session.user = String(req.body?.name ?? "guest")
    res.json({ user: req.session.user })
  })
})

app.post("/sign-out", (req, res, next) => {
  const { sessionID } = req
  req.session.destroy((error) => {
    if (error) return next(error)
    io.in(sessionID).disconnectSockets()
    res.json({})
  })
})

// The same middleware for the handshake: socket.request.session is the session of the browser.
io.engine.use(sessions)
io.use((socket, next) => {
  next(socket.request.session.user ? undefined : new Error("sign in first"))
})

io.on("connection", (socket) => {
  const { session } = socket.request
  socket.join(session.id)

  socket.on("message", (text, done) => {
    // A socket outlives many requests. Reload the session before each change.
    session.reload((error) => {
      if (error) return done({ error: error.code ?? error.message })
      session.messages = (session.messages ?? 0) + 1
      session.save((failed) => {
        if (failed) return done({ error: failed.code })
        io.emit("message", { user: session.user, text: String(text) })
        done({})
      })
    })
  })
})

app.use((error, _req, res, _next) => {
  const status = error.code?.startsWith("ERR_REDIS_STORE_") ? 503 : (error.status ?? 500)
  res.status(status).json({ code: error.code ?? "error" })
})

listener.listen(process.env.PORT ?? 3000, () => {
  console.log(`Open http://localhost:${listener.address().port}`)
})

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await io.close()
    await store.close()
  })
}
