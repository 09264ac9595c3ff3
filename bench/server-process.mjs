import { fork } from "node:child_process"
import { once } from "node:events"

// The parent's end of bench/server.mjs. Resolves to `{url, stop}`.
export async function startServerProcess() {
  const child = fork(new URL("./server.mjs", import.meta.url))
  const ended = once(child, "exit")
  const [message] = await Promise.race([once(child, "message"), ended])
  if (!message?.url) throw new Error("Redis did not start; is redis-server installed?")
  return {
    url: message.url,
    async stop() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}
