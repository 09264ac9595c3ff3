"use strict"

const session = require("express-session")

const { RedisStoreError, optionError, shown } = require("./errors.js")
const { createRedisStore } = require("./redis-store.js")

const legacyStores = new WeakMap()

/** The module itself: connect-redis 3 to 6 were this function of express-session. */
function connectRedis(expressSession) {
  const Store = expressSession?.Store
  if (typeof Store !== "function") {
    throw optionError(
      `connect-redis-native was called as a function with ${shown(expressSession)}; write new RedisStore({client}), or pass express-session as connect-redis 3 to 6 did.`,
    )
  }
  if (!legacyStores.has(Store)) {
    legacyStores.set(Store, callable(createRedisStore(Store, { legacy: true })))
  }
  return legacyStores.get(Store)
}

/** The class, which says what to do when it is called without `new`. */
function callable(RedisStore) {
  const proxy = new Proxy(RedisStore, { apply: (_target, _self, [argument]) => connectRedis(argument) })
  Object.defineProperty(RedisStore.prototype, "constructor", {
    value: proxy,
    configurable: true,
    writable: true,
  })
  return proxy
}

const RedisStore = callable(createRedisStore(session.Store, { legacy: false }))

module.exports = { connectRedis, RedisStore, RedisStoreError }
