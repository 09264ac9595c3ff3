// A child process with a store: calls the methods that its parent requests.
import { RedisStore } from "../../index.mjs"

const [url] = process.argv.slice(2)

const stores = new Map()

process.on("message", async ({ prefix, method, args }) => {
  if (!stores.has(prefix)) stores.set(prefix, new RedisStore({ url, prefix }))
  const store = stores.get(prefix)
  const error = await store[method](...args).then(
    () => undefined,
    (thrown) => thrown.message,
  )
  process.send({ error })
})
