import express from "express"
import session from "express-session"
import { RedisStore } from "connect-redis-native"
const store = new RedisStore({ url: process.env.REDIS_URL })
const app = express()
app.use(session({ store, secret: "keyboard cat", resave: false, saveUninitialized: false }))
app.get("/", (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.send(`visit ${req.session.visits}`)
})
app.listen(process.env.PORT, "127.0.0.1")
