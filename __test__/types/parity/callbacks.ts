// Callbacks of every shape, passed directly or through a wrapper.
import type { SessionData } from "express-session"
import { RedisStore } from "connect-redis"

type Callback = (error?: unknown, data?: any) => any
type AnyCallback = (err?: any, s?: any) => void

export class Wrapper {
  constructor(private readonly store: RedisStore) {}
  get(sid: string, cb?: AnyCallback) {
    return this.store.get(sid, cb)
  }
  set(sid: string, session: SessionData, cb?: AnyCallback): Promise<any> {
    return this.store.set(sid, session, cb)
  }
  touch(sid: string, session: SessionData, cb?: Callback): Promise<void> {
    return this.store.touch(sid, session, cb)
  }
  async destroy(sid: string, cb?: Callback): Promise<void> {
    await this.store.destroy(sid, cb)
  }
  clear(cb?: () => void) {
    return this.store.clear(cb)
  }
  length(cb?: Callback): Promise<number> {
    return this.store.length(cb)
  }
  ids(cb?: Callback): Promise<string[]> {
    return this.store.ids(cb)
  }
  all(cb?: AnyCallback): Promise<SessionData[]> {
    return this.store.all(cb)
  }
}

export function inline(store: RedisStore, session: SessionData): void {
  store.get("sid", (error, found) => void [error, found.user])
  store.get("sid", (_error, found) => found?.user)
  store.get("sid", () => {})
  store.get("sid", async (error) => {
    if (error) throw error
  })
  store.set("sid", session, (error) => void error)
  store.set("sid", session, (error, result) => void [error, result.anything])
  store.touch("sid", session, (error?: unknown) => error)
  store.destroy("sid", (error: any) => error?.message)
  store.clear((error) => error)
  store.length((error, length) => void [error, length.toFixed()])
  store.length((error, length: number) => void [error, length])
  store.length((_error, length?: number) => length)
  store.ids((error, ids) => void [error, ids.join()])
  store.ids((_error, ids: string[]) => ids)
  store.all((error, sessions) => void [error, sessions.length, sessions[0].user])
  store.all((_error, sessions?: SessionData[]) => sessions)
  store.all((_error, sessions) => {
    for (const session of sessions) session.user.toUpperCase()
  })
}

export async function promises(store: RedisStore, session: SessionData): Promise<unknown> {
  const none: void = await store.set("sid", session)
  const alsoNone: null = await store.touch("sid", session)
  const count: number = await store.destroy("sid")
  const text: string = await store.clear()
  const length: number = await store.length()
  const ids: string[] = await store.ids()
  const sessions: SessionData[] = await store.all()
  const users = (await store.all()).map((one: any) => one.user)
  const own = (await store.all()) as { user: string }[]
  for (const sid of await store.ids()) await store.destroy(sid)
  await Promise.all([store.get("a"), store.get("b", () => {})])
  store.get("sid").then((found) => found.user)
  store.set("sid", session).catch(() => {})
  store.destroy("sid", () => {}).finally(() => {})
  return [none, alsoNone, count, text, length, ids, sessions, users, own]
}
