// `npm run demo`: the page that compares connect-redis 10 with this package, on localhost, from a fresh clone.
import { version } from "../testing/project.mjs"
import { prepare } from "./prepare.mjs"

const port = Number(process.env.PORT || 3000)

try {
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new Error(`PORT must be an integer from 1 to 65535, got "${process.env.PORT}".`)
  }
  await prepare()
  const { startDemo } = await import("../examples/demo/server.mjs")
  const demo = await startDemo({ port })
  console.log(`connect-redis-native ${version()} beside connect-redis 10, over ${demo.redis.description}`)
  console.log(`Open ${demo.url} (Ctrl-C ends it)`)
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => demo.close())
} catch (error) {
  const inUse = error.code === "EADDRINUSE"
  console.error(inUse ? `Port ${port} is in use; choose another: PORT=3001 npm run demo` : error.message)
  process.exitCode = 1
}
