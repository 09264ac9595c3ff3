// A process of an app: requests on sessions, by a store of the options in OPTIONS, as its parent asks.
import { RedisStore } from "../../index.mjs"

const { keys, plaintext, ...options } = JSON.parse(process.env.OPTIONS)
const encryption = keys && { keys: keys.map(([id, byte]) => ({ id, key: Buffer.alloc(32, byte) })), plaintext }
const store = new RedisStore({
  onConflict: "merge",
  commandTimeoutMs: 20_000,
  ...options,
  ...(encryption && { encryption }),
})
const CONCURRENCY = 8

async function load(sid) {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

const jobs = {
  /** So many requests, each of which counts itself in the session, in a property of this process. */
  async visit({ ids, count, as }) {
    const visits = {}
    let missing = 0
    let left = count
    const chain = async () => {
      while (left-- > 0) {
        const number = left
        const sid = ids[number % ids.length]
        const session = await load(sid)
        if (session === null) {
          missing++
          continue
        }
        session[`${as}-${number}`] = 1
        await store.set(sid, session)
        visits[sid] = (visits[sid] ?? 0) + 1
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, chain))
    return { visits, missing }
  },
  /** Reads every session, saves each third one, and ends those that are named. */
  async use({ ids, ended, as }) {
    const ending = new Set(ended)
    const rest = [...ids.entries()]
    const missing = []
    const chain = async () => {
      for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
        const [at, sid] = next
        const session = await load(sid)
        if (session === null && !ending.has(sid)) missing.push(sid)
        if (ending.has(sid) && as === "a") await store.destroy(sid)
        if (session !== null && at % 3 === 0) {
          session[as] = at
          await store.set(sid, session)
        }
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, chain))
    return { missing }
  },
  reseal: () => store.reseal(),
}

process.on("message", async ({ id, job, ...args }) => {
  try {
    if (job === "end") {
      await store.close()
      process.send({ id }, () => process.disconnect())
    } else process.send({ id, result: await jobs[job](args) })
  } catch (error) {
    process.send({ id, error: `${error.code} ${error.stack}` })
  }
})
process.send({ id: 0 })
