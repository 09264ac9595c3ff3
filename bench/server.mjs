// Redis under a separate process, which stops it even if the benchmark was killed.
import { makeCertificates, startCluster } from "../testing/topologies.mjs"
import { freePort, startServer } from "../testing/redis-server.mjs"

const START = { cluster: () => startCluster({ replicas: 0 }), tls: startTls, plain: startServer }
const server = START[process.argv[2]]()

process.on("disconnect", async () => {
  await (await server).stop()
  process.exit()
})
// Ctrl-C reaches every process of the terminal; the parent handles it.
process.on("SIGINT", () => {})

const { url, ca, masters = [{ url }] } = await server
process.send({ urls: masters.map((master) => master.url), ca })

async function startTls() {
  const { args, ca, remove } = makeCertificates()
  try {
    const port = await freePort()
    const { stop } = await startServer({ args: args(port) })
    return { url: `rediss://127.0.0.1:${port}`, ca, stop }
  } finally {
    // Redis has read the files.
    remove()
  }
}
