// What the tests of the sessions of users share.

export const userOf = (session) => session.user
export const cookie = (ms = 3_600_000) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms).toISOString() })

/** Saves a new session of `user`. */
export function signIn(store, sid, user, ms) {
  return store.set(sid, { cookie: cookie(ms), user })
}

/** A session as express-session makes it of what is stored; or null. */
export async function load(store, sid) {
  const data = await store.get(sid)
  return data && store.createSession({ sessionID: sid, sessionStore: store }, data)
}

/** The keys of indexes. */
export async function indexKeys(client, userPrefix) {
  const keys = await client.keys(`${userPrefix.replace(/[*?[\]\\]/g, "\\$&")}*`)
  return keys.filter((key) => /\{[\w-]{43}\}(:expiry)?$/.test(key)).toSorted()
}

/** How many indexes have entries that are all older than `ms`. */
export async function entries(client, userPrefix, ms) {
  const keys = (await indexKeys(client, userPrefix)).filter((key) => !key.endsWith(":expiry"))
  const [seconds, micros] = await client.sendCommand(["TIME"])
  const now = Number(seconds) * 1000 + Number(micros) / 1000
  let count = 0
  for (const key of keys) {
    const times = (await client.hVals(key)).map((entry) => Number(entry.split(":")[1]) / 1000)
    if (times.every((at) => now - at > ms)) count++
  }
  return count
}
