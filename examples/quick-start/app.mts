import { RedisStore } from "connect-redis-native"
import express from "express"
import session from "express-session"

declare module "express-session" {
  interface SessionData {
    visits: number
  }
}

const store = new RedisStore({ url: process.env.REDIS_URL ?? "redis://localhost:6379" })
const app = express()
app.use(session({ store, secret: "change me", resave: false, saveUninitialized: false }))

app.get("/", (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.send(`visit ${req.session.visits}`)
})

const listener = app.listen(Number(process.env.PORT ?? 3000), () => {
  const address = listener.address()
  if (typeof address === "object") console.log(`Open http://localhost:${address?.port}`)
})
