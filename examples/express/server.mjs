import { RedisStore } from "connect-redis-native"

import { createApp } from "./app.mjs"

const url = process.env.REDIS_URL ?? "redis://localhost:6379"
const port = Number(process.env.PORT ?? 3000)
const store = new RedisStore({ url })

const listener = createApp({ store, redis: new URL(url).host }).listen(port, () => {
  console.log(`Open http://localhost:${port}`)
})
process.once("SIGTERM", () => listener.close(() => store.close()))
