import RedisStore, { RedisStore as Named } from "connect-redis-native"
import * as connectRedis from "connect-redis-native"
import * as session from "express-session"

const Legacy = connectRedis(session)
export const stores: session.Store[] = [
  new RedisStore({ client: {} }),
  new Named({ url: "redis://localhost" }),
  new Legacy({ client: {} }),
  new connectRedis.RedisStore({ client: {} }),
]
