// `npm run demo`: the example app on localhost, from a fresh clone.
import { version } from "../testing/project.mjs"
import { prepare } from "./prepare.mjs"
import { useRedis } from "../testing/redis-server.mjs"

const port = Number(process.env.PORT || 3000)

try {
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new Error(`PORT must be an integer from 1 to 65535, got "${process.env.PORT}".`)
  }
  await prepare()
  const redis = await useRedis()
  const { RedisStore } = await import("../index.mjs")
  const { createApp } = await import("../examples/express/app.mjs")
  const store = new RedisStore({ url: redis.url, prefix: "demo:" })
  const stop = async () => {
    await store.close()
    await redis.stop()
  }
  const listener = createApp({ store, redis: redis.description }).listen(port, "localhost", (error) => {
    if (error) {
      console.error(
        error.code === "EADDRINUSE"
          ? `Port ${port} is in use; choose another by PORT=3001 npm run demo.`
          : error.message,
      )
      process.exitCode = 1
      return void stop()
    }
    console.log(`Redis: ${redis.description}`)
    console.log(`Store: connect-redis-native ${version()} (${store.native ? "native" : "delegating"})`)
    console.log(`Open http://localhost:${port} (Ctrl-C ends it)`)
  })
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => {
      listener.closeAllConnections()
      listener.close(stop)
    })
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
