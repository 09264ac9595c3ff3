import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import connectRedisNative, { RedisStore as Named } from "../index.mjs"

const require = createRequire(import.meta.url)
const connectRedis = require("../index.js")
const { RedisStore, RedisStoreError } = connectRedis
const url = "redis://127.0.0.1:1"
const userOf = (session) => session.user

const refused = (pattern) => (error) => {
  assert.ok(error instanceof TypeError)
  assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
  assert.match(error.message, pattern)
  return true
}

describe("the error names a wrong option and its value", () => {
  const WRONG = [
    [undefined, /needs options, got undefined; pass \{client\}/],
    [null, /needs options, got null/],
    [{}, /one of the options "client" .*, "url" .*, "nodes" .* and "sentinel", got none/],
    [{ url, nodes: [{ port: 1 }] }, /got url and nodes/],
    [{ url: 5 }, /Option "url" must be a Redis URL, got a number/],
    [{ url, tls: "yes" }, /Option "tls" must be true or an object of TLS options, got "yes"/],
    [{ url, tls: { cA: "" } }, /Option "tls\.cA" is unknown; the known options are ca/],
    [{ url, tls: { key: "" } }, /Option "tls" needs cert and key together/],
    [{ url, password: 5 }, /Option "password" must be a string, got a number/],
    [{ url, username: 5 }, /Option "username" must be a string/],
    [{ url, credentials: { password: "" } }, /Option "credentials" must be a function that returns/],
    [{ url, database: -1 }, /Option "database" must be a database number, got -1/],
    [{ url, clientName: "a b" }, /Option "clientName" must be a string without spaces, got "a b"/],
    [{ nodes: [] }, /Option "nodes" must be a list of \{host, port\}/],
    [{ nodes: "host:1" }, /Option "nodes" must be a list of a cluster's nodes, got a string/],
    [{ nodes: [{ port: 0 }] }, /Option "nodes\[0\]" must be/],
    [{ nodes: ["redis://u:hunter2@h:1"] }, /"nodes\[0\]" must be .*, got a string that is neither\.$/],
    [{ nodes: ["rediss://h:1"] }, /"nodes\[0\]" must be/],
    [{ nodes: [{ port: 1 }], database: 2 }, /Option "database" must be 0 for a cluster.*, got 2/],
    [{ sentinel: { nodes: [{ port: 1 }] } }, /Option "sentinel\.name" must be the name of a master group/],
    [{ sentinel: { name: "m" } }, /Option "sentinel\.nodes" must be a list/],
    [{ sentinel: { name: "m", nodes: ["h"], user: "x" } }, /Option "sentinel\.user" is unknown/],
    [{ url, prefix: () => "p" }, /Option "prefix" must be a string, got a function/],
    [{ url, prefix: {} }, /Option "prefix" must be a string, got an object/],
    [{ url, ttl: "soon" }, /Option "ttl" must be a positive number of seconds.*, got "soon"/],
    [{ url, ttl: -1 }, /got -1/],
    [{ url, ttl: Number.NaN }, /got NaN/],
    [{ url, ttl: Infinity }, /set disableTTL, got Infinity/],
    [{ url, onDestroyed: true }, /Option "onDestroyed" must be "skip", "error" or "save", got true/],
    [{ url, userOf: "user" }, /Option "userOf" must be a function of the session.*, got "user"/],
    [{ url, userOf, sessionInfo: {} }, /Option "sessionInfo" must be a function .*, got an object/],
    [{ url, userOf, userPrefix: "" }, /Option "userPrefix" must be a string that is not empty, got ""/],
    [{ url, userOf, userPrefix: 5 }, /Option "userPrefix" must be .*, got 5/],
    [{ url, userOf, maxSessionsPerUser: 0 }, /Option "maxSessionsPerUser" must be a positive integer, or .*, got 0/],
    [{ url, userOf, maxSessionsPerUser: 1.5 }, /got 1\.5/],
    [{ url, userOf, maxSessionsPerUser: { max: 1 } }, /Option "maxSessionsPerUser" .*, got an object/],
    [{ url, userOf, maxSessionsPerUser: { max: 0, onLimit: "reject" } }, /Option "maxSessionsPerUser"/],
    [{ url, userOf, maxSessionsPerUser: { max: 1, onLimit: "end" } }, /Option "maxSessionsPerUser"/],
    [{ url, maxSessionsPerUser: 1 }, /Option "maxSessionsPerUser" needs the option "userOf"/],
    [{ url, sessionInfo: () => ({}) }, /Option "sessionInfo" needs the option "userOf"/],
    [{ url, userPrefix: "users:" }, /Option "userPrefix" needs the option "userOf"/],
    [{ url, tagSessions: "yes" }, /Option "tagSessions" must be true or false, got "yes"/],
    [{ url, serializer: {} }, /Option "serializer" must have the methods parse and stringify, got an object/],
    [{ url, scanCount: "many" }, /Option "scanCount" must be an integer from 1 to 1000000, got "many"/],
    [{ url, scanCount: -1 }, /got -1/],
    [{ url, connectTimeoutMs: 0 }, /Option "connectTimeoutMs" must be an integer from 1/],
    [{ url, commandTimeoutMs: 2 ** 31 }, /Option "commandTimeoutMs"/],
    [{ url, maxPending: -5 }, /Option "maxPending"/],
    [{ host: "localhost" }, /Option "host" is an option of connect-redis 3 .* pass \{url/],
  ]
  for (const [options, pattern] of WRONG) {
    test(JSON.stringify(options) ?? "undefined", () => {
      assert.throws(() => new RedisStore(options), refused(pattern))
    })
  }
})

describe("the error of a wrong url contains no part that may be a password", () => {
  const WRONG = [
    ["localhost:6379", /must begin as in .*, got "localhost:"/],
    ["http://:secret@localhost", /got "http:"/],
    ["redis://localhost/one", /database number, got something else/],
    ["redis://user:1/secret@localhost:6379/0", /percent-encode/],
    ["redis://user:1?secret@localhost", /percent-encode/],
    ["redis://user:1#secret@localhost", /percent-encode/],
    ["redis://:secret@localhost:99999", /cannot be parsed/],
    ["redis://:sec%ret@localhost", /not part of an escape/],
    ["redis://:secret@localhost?db=1", /has an unknown parameter/],
    ["redis+unix://", /must name a path/],
    ["", /cannot be parsed/],
  ]
  for (const [wrong, pattern] of WRONG) {
    test(wrong, () => {
      assert.throws(
        () => new RedisStore({ url: wrong }),
        (error) => refused(pattern)(error) && !error.message.includes("sec"),
      )
    })
  }
})

describe("a client without the commands that every store needs is refused", () => {
  const get = () => {}
  const WRONG = [
    ["nothing", {}, /without the method get\(\)/],
    ["only get", { get }, /without the method set\(\)/],
    ["no del", { get, set: get }, /without the method del\(\)/],
    ["a date", new Date(), /without the method get\(\)/],
    ["a string", "redis://localhost", /must be a Redis client, got a string/],
  ]
  for (const [name, client, pattern] of WRONG) {
    test(name, () => assert.throws(() => new RedisStore({ client }), refused(pattern)))
  }
})

test("null, undefined and a ttl of 0 mean the default", () => {
  const store = new RedisStore({ url, prefix: null, ttl: 0, scanCount: undefined, serializer: null, disableTTL: null })
  assert.deepEqual(
    [store.prefix, store.ttl, store.scanCount, store.serializer, store.disableTTL],
    ["sess:", 86400, 100, JSON, false],
  )
})

describe("every import shape", () => {
  test("is the same class", () => {
    assert.equal(connectRedis.default, RedisStore)
    assert.equal(connectRedis.__esModule, true)
    assert.equal(Named, RedisStore)
    assert.equal(connectRedisNative, RedisStore)
  })

  test("connect-redis 3 to 6's factory extends the Store of the session it was given", () => {
    class Store extends require("node:events") {}
    const Legacy = connectRedis({ Store })
    assert.ok(new Legacy({ url }) instanceof Store)
    assert.equal(connectRedis({ Store }), Legacy)
    const session = require("express-session")
    assert.ok(new (connectRedis(session))({ url }) instanceof session.Store)
    assert.equal(connectRedisNative(session), connectRedis(session))
  })

  test("a call without new is an error that names new", () => {
    for (const call of [RedisStore, connectRedis, connectRedis(require("express-session"))]) {
      assert.throws(() => call({ url }), refused(/write new RedisStore\(\{client\}\), or pass express-session/))
      assert.throws(() => call(), refused(/called as a function with undefined/))
    }
  })

  test("an instance of a subclass is a RedisStore, and its overrides are used", () => {
    class Own extends RedisStore {
      get(sid, callback) {
        callback(null, { sid, cookie: {} })
      }
    }
    const store = new Own({ url })
    assert.ok(store instanceof RedisStore)
    assert.equal(store.constructor, Own)
    let loaded
    store.load("x", (_error, found) => {
      loaded = found.sid
    })
    assert.equal(loaded, "x")
  })

  test("a store's constructor is the exported class", () => {
    assert.equal(new RedisStore({ url }).constructor, RedisStore)
  })
})

test("RedisStoreError is an Error with code and cause", () => {
  const cause = new Error("why")
  const error = new RedisStoreError("ERR_REDIS_STORE_SERVER", "what", cause)
  assert.ok(error instanceof Error)
  assert.deepEqual(
    [error.name, error.code, error.message, error.cause],
    ["RedisStoreError", "ERR_REDIS_STORE_SERVER", "what", cause],
  )
  assert.equal("cause" in new RedisStoreError("ERR_REDIS_STORE_SERVER", "what"), false)
})
