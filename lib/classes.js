"use strict"

const { EventEmitter } = require("node:events")

const { RedisStoreError, kindOf, optionError } = require("./errors.js")
const { createRedisStore } = require("./redis-store.js")

const legacyStores = new WeakMap()

/**
 * express-session's Store. An app with @fastify/session has no express-session; there a store must be an
 * EventEmitter.
 */
function findStore() {
  try {
    return require("express-session").Store
  } catch (error) {
    const [found] = String(error?.message).split("\n")
    if (String(error?.code).endsWith("MODULE_NOT_FOUND") && found.includes("express-session")) return PlainStore
    throw error
  }
}

class PlainStore extends EventEmitter {
  /** express-session sets this property on its store, then calls methods that only its own Store has. */
  set generate(_generate) {
    throw optionError(
      "connect-redis-native cannot find the express-session that uses this store; install both in the same node_modules.",
    )
  }
}

/** The export of the module: as in connect-redis 3 to 6, a function that receives express-session. */
function connectRedis(expressSession) {
  const Store = expressSession?.Store
  if (typeof Store !== "function") {
    throw optionError(
      `connect-redis-native was called as a function with ${kindOf(expressSession)}; write new RedisStore({client}), or pass express-session as connect-redis 3 to 6 did.`,
    )
  }
  if (!legacyStores.has(Store)) {
    legacyStores.set(Store, callable(createRedisStore(Store, { legacy: true })))
  }
  return legacyStores.get(Store)
}

/** The class. A call without `new` throws an error that names the remedy. */
function callable(RedisStore) {
  const proxy = new Proxy(RedisStore, { apply: (_target, _self, [argument]) => connectRedis(argument) })
  Object.defineProperty(RedisStore.prototype, "constructor", {
    value: proxy,
    configurable: true,
    writable: true,
  })
  return proxy
}

const RedisStore = callable(createRedisStore(findStore(), { legacy: false }))

module.exports = { connectRedis, RedisStore, RedisStoreError }
