import { after, before } from "node:test"

import { createClient } from "redis"

import { startServer } from "../../testing/redis-server.mjs"

export { findServer, findValkey, freePort, startServer } from "../../testing/redis-server.mjs"

/** A server for the tests of this file, with a plain client to inspect its data. */
export function ownServer(options, prepare = () => {}) {
  const own = {}
  before(async () => {
    Object.assign(own, await startServer(options))
    own.client = await createClient({ url: own.url }).connect()
    await prepare(own.client)
  })
  after(async () => {
    await own.client.close()
    await own.stop()
  })
  return own
}

let prefixes = 0

/** A key prefix that no other test uses. */
export function ownPrefix() {
  return `test${process.pid}-${++prefixes}:`
}
