import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { createClient } from "redis"

import { startServer } from "../../testing/redis-server.mjs"

/** The Redis below both apps, which the demo owns: it may freeze, kill and demote it. */
export async function ownRedis() {
  // A folder of its own, so that the data survive a kill.
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const args = ["--dir", folder, "--appendonly", "yes", "--appendfsync", "no"]
  let server = await startServer({ args })
  const { port, url } = server
  const command = async (...words) => {
    const client = await createClient({ url })
      .on("error", () => {})
      .connect()
    await client.sendCommand(words)
    client.destroy()
  }
  return {
    url,
    description: `${server.server.name} ${server.server.version}, started on port ${port}`,
    freeze: () => server.process.kill("SIGSTOP"),
    thaw: () => server.process.kill("SIGCONT"),
    kill: () => server.stop(),
    restart: async () => {
      server = await startServer({ args, port })
    },
    demote: () => command("REPLICAOF", "127.0.0.1", "1"),
    promote: () => command("REPLICAOF", "NO", "ONE"),
    stop: async () => {
      await server.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
