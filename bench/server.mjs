// Redis, under a process of its own: it is stopped even when the benchmark was killed and could not do it.
import { startServer } from "../scripts/redis-server.mjs"

const server = startServer()

process.on("disconnect", async () => {
  await (await server).stop()
  process.exit()
})
// Ctrl-C reaches every process of the terminal; what to do about it is the parent's to say.
process.on("SIGINT", () => {})

process.send({ url: (await server).url })
