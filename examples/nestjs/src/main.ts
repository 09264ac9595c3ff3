import { NestFactory } from "@nestjs/core"
import { RedisStore } from "connect-redis-native"
import session from "express-session"

import { AppModule, STORE } from "./app.module.js"

const app = await NestFactory.create(AppModule)
app.use(
  session({
    store: app.get<RedisStore>(STORE),
    secret: process.env.SESSION_SECRET ?? "change me",
    resave: false,
    saveUninitialized: false,
  }),
)
app.enableShutdownHooks(["SIGINT", "SIGTERM"], { useProcessExit: true })
await app.listen(process.env.PORT ?? 3000)
console.log(`Open http://localhost:${new URL(await app.getUrl()).port}`)
