// Fields, variables and interfaces that hold a store.
import session, { type SessionData, type SessionOptions, type Store } from "express-session"
import { RedisStore } from "connect-redis"

interface StoreLike {
  get(sid: string, cb?: (err: unknown, found?: SessionData | null) => void): unknown
  set(sid: string, session: SessionData, cb?: (err?: unknown) => void): unknown
  destroy(sid: string, cb?: (err?: unknown) => void): unknown
  length(cb?: (err: any, length: number) => void): unknown
  all(cb: (err: any, all?: SessionData[] | { [sid: string]: SessionData } | null) => void): void
}

export function fields(store: RedisStore): unknown {
  store.client = {} as any
  store.prefix = "app:"
  store.serializer = JSON
  store.serializer = { parse: (text: string) => JSON.parse(text) as SessionData, stringify: JSON.stringify }
  store.ttl = 5
  store.ttl = (data: SessionData) => data.cookie.maxAge ?? 5
  store.ttl = (data) => data.cookie.maxAge ?? 5
  store.disableTTL = store.disableTouch = true
  return [store.ttl, store.scanCount + 1]
}

export function variables(client: any, store: RedisStore): unknown {
  const one: Store | undefined = process.env.REDIS_URL ? new RedisStore({ client }) : new session.MemoryStore()
  const options: SessionOptions = { secret: "secret", ...(client ? { store: new RedisStore({ client }) } : {}) }
  const isRedisStore = (other: Store): other is RedisStore => other instanceof RedisStore
  if (isRedisStore(one)) one.ids().then((ids: string[]) => ids)
  const like: StoreLike = store
  const mapped: { [Key in keyof RedisStore]: RedisStore[Key] } = store
  const picked: Array<Pick<RedisStore, "ids">> = [store]
  return [options, like, mapped, picked]
}

export class Implementing extends RedisStore implements StoreLike {}

export interface Extending extends RedisStore {
  tenant: string
}

export class WithRequiredCallback extends RedisStore {
  override get(sid: string, cb: (error?: unknown, data?: any) => any): Promise<any> {
    return super.get(sid, cb)
  }
  override length(cb: (error?: unknown, data?: any) => any): Promise<any> {
    return super.length(cb)
  }
  override all(cb: (error?: unknown, data?: any) => any): Promise<any> {
    return super.all(cb)
  }
}

export class Untyped extends RedisStore {
  override get(sid: any, cb?: any): any {
    return super.get(sid, cb)
  }
  override set = async (_sid: string, _session: SessionData, cb?: any) => cb
  override on(event: string, listener: (...args: any[]) => void): this {
    return super.on(event as any, listener)
  }
}

export async function destructured(store: RedisStore): Promise<unknown> {
  const { user, cookie } = await store.get("sid")
  const [count, all] = await Promise.all([store.length(), store.all()])
  const found: SessionData | undefined = (await store.get("sid")) ?? undefined
  const { length } = await store.all()
  return [user, cookie, count + 1, all, found, length]
}
