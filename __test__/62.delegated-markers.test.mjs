// Destroyed, expired and evicted, by the commands of every client.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { describe, test } from "node:test"

import { CLIENTS } from "./support/clients.mjs"
import { RedisStore } from "./support/delegated.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const { markerOf } = createRequire(import.meta.url)("../lib/races/marker.js")
const server = ownServer()
const HOUR = 3_600_000
const cookie = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR).toISOString() })

/** Whether a session exists that `store` loaded, `remove` removed, and `store` then saved. */
async function survives(store, sid, remove) {
  await store.set(sid, { cookie: cookie() })
  const loaded = store.createSession({ sessionID: sid, sessionStore: store }, await store.get(sid))
  await remove(sid)
  loaded.n = 1
  await store.set(sid, loaded)
  return (await store.get(sid)) !== null
}

/** Mocks do not use the server. */
const IS_OF_A_SERVER = ({ pttl }) => pttl === undefined

describe("without the native binary", () => {
  for (const kind of CLIENTS) {
    test(kind.name, async () => {
      const client = await kind.open(server.url)
      const isClosed = /not connected|credentialsProvider/.test(kind.name)
      if (isClosed) await client.on("error", () => {}).connect()
      const open = () => new RedisStore({ client, prefix: ownPrefix() })
      const cleared = open()
      assert.equal(await survives(cleared, "a", () => cleared.clear()), false)
      assert.equal(await cleared.length(), 0)
      const store = open()
      const { prefix } = store
      assert.equal(store.native, false)
      assert.equal(await survives(store, "a", () => store.destroy("a")), false)
      assert.deepEqual([await store.length(), await store.ids()], [0, []])
      if (IS_OF_A_SERVER(kind)) {
        const left = await server.client.pTTL(markerOf(prefix, `${prefix}a`))
        assert.ok(left > 50_000 && left <= 60_000, `${left}`)
        const evicted = await survives(store, "c", (sid) => server.client.del(prefix + sid))
        assert.equal(evicted, true)
        // As another process would do.
        const marked = async (sid) => {
          await server.client.set(markerOf(prefix, prefix + sid), "", { expiration: { type: "PX", value: 60_000 } })
          await server.client.del(prefix + sid)
        }
        assert.equal(await survives(store, "d", marked), false)
      }
      await (isClosed ? (client.close?.() ?? client.disconnect()) : kind.close(client))
    })
  }
})
