// A process whose store reads and touches one session until it is told to stop: `[url, prefix]`.
import { RedisStore } from "../../index.mjs"

const [url, prefix] = process.argv.slice(2)
const HOUR = 3_600_000
const store = new RedisStore({ url, prefix, touchAfter: 1 })
let isStopped = false
process.once("message", () => {
  isStopped = true
})
let requests = 0
for (; !isStopped; requests++) {
  const { cookie } = await store.get("a")
  cookie.expires = new Date(Date.now() + HOUR).toISOString()
  await store.touch("a", { cookie })
  if (requests === 0) process.send("ready")
}
await store.close()
process.send(requests)
process.disconnect()
