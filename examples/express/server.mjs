import { RedisStore } from "connect-redis-native"

import { createApp } from "./app.mjs"

const url = process.env.REDIS_URL ?? "redis://localhost:6379"
const store = new RedisStore({ url })
store.on("error", (error) => console.error(error.code, error.message))

const listener = createApp({ store, redis: new URL(url).host }).listen(process.env.PORT ?? 3000, () => {
  console.log(`Open http://localhost:${listener.address().port}`)
})

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    listener.close(() => store.close())
    listener.closeIdleConnections()
  })
}
