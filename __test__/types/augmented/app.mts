import RedisStore, {
  RedisStore as Named,
  RedisStoreError,
  type RedisStoreOptions,
  type Serializer,
} from "connect-redis-native"
import session, { type SessionData } from "express-session"

declare module "express-session" {
  interface SessionData {
    userId: number
    cart?: string[]
  }
}

const serializer: Serializer = {
  parse: async (text) => JSON.parse(text) as SessionData,
  stringify: (data) => JSON.stringify(data),
}

const options: RedisStoreOptions = {
  url: new URL("redis://localhost"),
  prefix: "app:",
  ttl: (data) => (data.userId > 0 ? 3600 : 60),
  serializer,
  scanCount: 500,
  connectTimeoutMs: 1000,
  commandTimeoutMs: 500,
  maxPending: 100,
}
const store = new RedisStore(options)
session({ store, secret: "secret", resave: false, saveUninitialized: false })

class Traced extends Named {
  override get(sid: string, callback: (error: any, session?: SessionData | null) => void): void
  override get(sid: string): Promise<SessionData | null>
  override get(sid: string, callback?: (error: any, session?: SessionData | null) => void): any {
    return callback ? super.get(sid, callback) : super.get(sid)
  }
}

export async function use(): Promise<void> {
  const found = await new Traced(options).get("sid")
  const user: number | undefined = found?.userId
  const sessions: SessionData[] = await store.all()
  const ids: string[] = await store.ids()
  const count: number = await store.length()
  store.get("sid", (error, data) => {
    if (error instanceof RedisStoreError && error.code === "ERR_REDIS_STORE_TIMEOUT") throw error
    return data?.cart
  })
  // @ts-expect-error a session id is a string
  await store.get(1)
  // @ts-expect-error an unknown option
  void new RedisStore({ url: "", perfix: "" })
  // @ts-expect-error the code is one of a closed list
  void new RedisStoreError("ERR_OTHER", "")
  void [user, sessions, ids, count, store.native, store.client]
  await store.close()
}
