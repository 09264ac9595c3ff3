import session = require("express-session")
import connectRedis = require("connect-redis-native")

const { RedisStore } = connectRedis
const byName: session.Store = new RedisStore({ url: "redis://localhost" })
const byDefault: session.Store = new connectRedis.default({ client: {} })
const interop: true = connectRedis.__esModule

const Legacy = connectRedis(session)
const legacy = new Legacy({ client: {}, ttl: 60 })
legacy.set("sid", { cookie: new session.Cookie() }, (error) => error)
class Subclass extends connectRedis(session) {}
const held: connectRedis.RedisStore = legacy
const options: connectRedis.RedisStoreOptions = { client: {} }

session({ store: legacy, secret: "secret" })
// @ts-expect-error the factory takes express-session
connectRedis({ client: {} })
// @ts-expect-error the factory is not the class
const wrong = new connectRedis({ client: {} })

export = { byName, byDefault, interop, Subclass, held, options, wrong }
