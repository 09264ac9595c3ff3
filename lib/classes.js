"use strict"

const { EventEmitter } = require("node:events")

const { RedisStoreError, kindOf, optionError } = require("./errors.js")
const { createRedisStore } = require("./redis-store.js")

const legacyStores = new WeakMap()

/**
 * express-session's Store. Who uses @fastify/session has no express-session, and it asks of a store
 * to be an EventEmitter.
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
  /** express-session sets it on its store, and then calls methods that only its own Store has. */
  set generate(_generate) {
    throw optionError(
      "connect-redis-native is used by an express-session that it could not find itself, from where it is installed; install both in one node_modules.",
    )
  }
}

/** The module itself: connect-redis 3 to 6 were this function of express-session. */
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

/** The class; a call without `new` is an error with the way out. */
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
