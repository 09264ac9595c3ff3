import session = require("express-session")
import connectRedis = require("connect-redis-native")

const { RedisStore } = connectRedis
const byName: session.Store = new RedisStore({ url: "redis://localhost" })
const byDefault: session.Store = new connectRedis.default({ client: {} })

const Legacy = connectRedis(session)
const legacy = new Legacy({ client: {}, ttl: 60 })
legacy.set("sid", { cookie: new session.Cookie() }, (error) => error)

session({ store: legacy, secret: "secret" })
export { byDefault, byName }
