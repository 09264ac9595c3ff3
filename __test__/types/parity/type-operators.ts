// Types that programs derive from the types of a store.
import { callbackify, promisify } from "node:util"
import type { SessionData } from "express-session"
import { RedisStore } from "connect-redis"

type Options = ConstructorParameters<typeof RedisStore>[0]
type Set = Parameters<RedisStore["set"]>
type Found = Awaited<ReturnType<RedisStore["get"]>>

export async function promisified(store: RedisStore, session: SessionData): Promise<unknown> {
  const get = promisify(store.get.bind(store))
  const set = promisify(store.set.bind(store))
  const touch = promisify(store.touch.bind(store))
  const destroy = promisify(store.destroy.bind(store))
  const clear = promisify(store.clear.bind(store))
  const length = promisify(store.length.bind(store))
  const ids = promisify(store.ids.bind(store))
  const all = promisify(store.all.bind(store))
  const found: SessionData | null = await get("sid")
  const count: number = await length()
  const names: string[] = await ids()
  const sessions: SessionData[] = await all()
  await set("sid", session)
  await touch("sid", session)
  await destroy("sid")
  await clear()
  return [(await get("sid")).user, found, count, names, sessions]
}

export function operators(store: RedisStore, session: SessionData): unknown {
  const args: Parameters<typeof store.set> = ["sid", session]
  const withCallback: Set = ["sid", session, (error) => error]
  const pending: ReturnType<typeof store.get> = store.get("sid")
  const found: Found = null
  const key: keyof RedisStore = "disableTouch"
  const bound = store.get.bind(store)
  const { destroy } = store
  const called = destroy.call(store, "sid", () => {})
  const applied = store.set.apply(store, args)
  const picked: Pick<RedisStore, "get" | "set" | "destroy"> = store
  const reading: { get(sid: string): Promise<SessionData | null> } = store
  const counting: { length(): Promise<number> } = store
  const partial: Partial<RedisStore> = { get: async () => null, destroy: async () => {} }
  const first: InstanceType<typeof RedisStore> = store
  const callbacks = callbackify(store.length.bind(store))
  const ttl: number = typeof store.ttl === "function" ? store.ttl(session) : store.ttl
  const text: string = store.serializer.stringify(session)
  const client = store.client
  const [method] = ["get", "ids"] as const
  return [withCallback, pending, found, key, bound("sid"), called, applied, picked, reading, counting, partial].concat([
    [first, callbacks, ttl, text, client, store[method], store instanceof RedisStore],
  ])
}

export const options: Options = { client: {} as any }
options.prefix = "app:"
options.ttl = (session) => session.cookie.originalMaxAge ?? 60
export const spread: Options = { ...options, scanCount: 5, serializer: JSON }
export const without: Omit<Options, "client"> = { prefix: "a", ttl: 5, disableTTL: true, disableTouch: false }
export const some: Partial<Options> = {}
export function create(client: any, rest: Record<string, any>): RedisStore {
  return new RedisStore({ client, ...rest })
}
export function generic<Store extends RedisStore>(store: Store, Class: new (options: Options) => Store): Store {
  return store ?? new Class({ client: {} as any })
}
export const made = generic(new RedisStore(options), RedisStore)
