// Redis, under a process of its own: it is stopped even when the benchmark was killed and could not do it.
import { startCluster } from "../__test__/support/topologies.mjs"
import { startServer } from "../scripts/redis-server.mjs"

const server = process.argv[2] === "cluster" ? startCluster({ replicas: 0 }) : startServer()

process.on("disconnect", async () => {
  await (await server).stop()
  process.exit()
})
// Ctrl-C reaches every process of the terminal; what to do about it is the parent's to say.
process.on("SIGINT", () => {})

const { url, masters = [{ url }] } = await server
process.send({ urls: masters.map((master) => master.url) })
