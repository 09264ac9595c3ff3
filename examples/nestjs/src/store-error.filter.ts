import { Catch, type ArgumentsHost } from "@nestjs/common"
import { APP_FILTER } from "@nestjs/core"
import { RedisStoreError } from "connect-redis-native"
import type { Response } from "express"

/** Answers 503 with the error's code when Redis does not answer. */
@Catch(RedisStoreError)
export class StoreErrorFilter {
  static readonly provider = { provide: APP_FILTER, useClass: StoreErrorFilter }

  catch(error: RedisStoreError, host: ArgumentsHost) {
    host.switchToHttp().getResponse<Response>().status(503).json({ code: error.code })
  }
}
