import session from "express-session"
import RedisStoreByDefault, { RedisStore, RedisStoreError } from "connect-redis-native"
import * as everything from "connect-redis-native"
import type { RedisStoreOptions } from "connect-redis-native"

declare module "express-session" {
  interface SessionData {
    user: string
  }
}

const options: RedisStoreOptions = { client: {} }
export const stores: session.Store[] = [
  new RedisStoreByDefault(options),
  new RedisStore(options),
  new everything.RedisStore(options),
  new everything.default(options),
  new (RedisStoreByDefault(session))(options),
]
export const same: typeof RedisStore = RedisStoreByDefault
export const store: RedisStoreByDefault<{ user: string }> = new RedisStore({ url: "redis://localhost" })
export const later = import("connect-redis-native").then(({ RedisStore }) => new RedisStore(options))
export const user = async (found = new RedisStore(options).get("sid")): Promise<string> => (await found).user
// @ts-expect-error the user is missing
void new RedisStore(options).set("sid", { cookie: new session.Cookie() })
export class Subclass extends RedisStoreByDefault {}
export { RedisStoreError }
