// @ts-check
const session = require("express-session")
const { RedisStore } = require("connect-redis-native")
const Legacy = require("connect-redis-native")(session)
const ByDefault = require("connect-redis-native").default

/** @typedef {import("connect-redis-native").RedisStoreOptions} Options */

/** @type {Options} */
const options = { client: {}, ttl: 60 }

/** @type {import("connect-redis-native").RedisStore<{ user: string }>} */
const store = new RedisStore(options)

/** @param {import("express-session").SessionData & { user: string }} data */
async function save(data) {
  await store.set("sid", data)
  store.get("sid", (error, found) => console.log(error, found?.user))
  // @ts-expect-error an event that does not exist
  store.on("typo", () => {})
  return (await store.get("sid"))?.user.length
}

class Traced extends RedisStore {
  /**
   * @override
   * @param {string} sid
   * @param {(error?: unknown, session?: any) => void} [callback]
   */
  get(sid, callback) {
    return super.get(sid, callback)
  }
}

// @ts-expect-error a Date is not a client
const wrong = new RedisStore({ client: new Date() })

module.exports = { stores: [new Legacy(options), new ByDefault(options), new Traced(options), wrong], save }
