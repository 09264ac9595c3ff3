import session from "express-session"
import RedisStore, { RedisStore as Named } from "connect-redis-native"

const stores: session.Store[] = [new RedisStore({ client: {} }), new Named({ url: "redis://localhost" })]
export { stores }
