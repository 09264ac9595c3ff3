import { Inject, Module, type OnApplicationShutdown } from "@nestjs/common"
import { RedisStore } from "connect-redis-native"

import { AccountController } from "./account.controller.js"
import { StoreErrorFilter } from "./store-error.filter.js"

export const STORE = Symbol("RedisStore")

@Module({
  controllers: [AccountController],
  providers: [
    {
      provide: STORE,
      useFactory: () => new RedisStore({ url: process.env.REDIS_URL ?? "redis://localhost:6379" }),
    },
    StoreErrorFilter.provider,
  ],
})
export class AppModule implements OnApplicationShutdown {
  constructor(@Inject(STORE) private readonly store: RedisStore) {}

  async onApplicationShutdown() {
    await this.store.close()
  }
}
