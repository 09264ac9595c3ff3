// @ts-check
import RedisStore, { RedisStore as Named, RedisStoreError } from "connect-redis-native"

/** @type {import("express-session").Store[]} */
export const stores = [new RedisStore({ client: {} }), new Named({ url: "redis://localhost" })]

/** @param {unknown} error */
export const isTimeout = (error) => error instanceof RedisStoreError && error.code === "ERR_REDIS_STORE_TIMEOUT"
