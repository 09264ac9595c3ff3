export {
  RedisStore,
  RedisStore as default,
  RedisStoreError,
  type Callback,
  type RedisStoreErrorCode,
  type RedisStoreOptions,
  type Serializer,
} from "./index.js"
