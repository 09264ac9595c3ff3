export {
  RedisStore,
  RedisStore as default,
  RedisStoreError,
  type Callback,
  type Credentials,
  type Node,
  type RedisStoreErrorCode,
  type RedisStoreOptions,
  type SentinelOptions,
  type Serializer,
  type TlsOptions,
} from "./index.js"
