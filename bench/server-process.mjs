import { fork } from "node:child_process"
import { once } from "node:events"

// The parent's end of bench/server.mjs. Resolves to `{urls, stop}`: a url for each master.
export async function startServerProcess({ cluster }) {
  const child = fork(new URL("./server.mjs", import.meta.url), cluster ? ["cluster"] : [])
  const ended = once(child, "exit")
  const [message] = await Promise.race([once(child, "message"), ended])
  if (!message?.urls) throw new Error("Redis did not start; is redis-server installed?")
  return {
    urls: message.urls,
    async stop() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}
