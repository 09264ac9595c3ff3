import connectRedisNative from "./index.js"

export const { RedisStore, RedisStoreError } = connectRedisNative
export default RedisStore
