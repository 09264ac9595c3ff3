import RedisStore, { RedisStore as Named } from "connect-redis-native"
import * as session from "express-session"

const stores: session.Store[] = [new RedisStore({ client: {} }), new Named({ url: "redis://localhost" })]
export { stores }
