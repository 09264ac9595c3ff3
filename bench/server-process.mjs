import { fork } from "node:child_process"
import { once } from "node:events"

// The parent's end of bench/server.mjs. Resolves to `{urls, ca, stop}`: a url for each master, and over TLS the
// certificate of the authority.
export async function startServerProcess({ cluster, tls }) {
  const child = fork(new URL("./server.mjs", import.meta.url), [cluster ? "cluster" : tls ? "tls" : "plain"])
  const ended = once(child, "exit")
  const [message] = await Promise.race([once(child, "message"), ended])
  if (!message?.urls) throw new Error("Redis did not start; is redis-server installed?")
  return {
    ...message,
    async stop() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}
