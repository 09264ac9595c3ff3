import assert from "node:assert/strict"
import { mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"

import { build } from "esbuild"

import { RedisStore } from "../index.mjs"
import { OTHER_CLIENTS } from "./support/clients.mjs"
import { delegatedContract } from "./support/delegated.mjs"
import { ownPrefix, ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const server = ownServer()
delegatedContract(
  server,
  OTHER_CLIENTS.filter(({ name }) => !/lazy|not connected|pool|credentials/.test(name)),
)

for (const name of ["redis-5", "redis"]) {
  test(`${name} legacy() in a bundle with short names of classes`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    t.after(() => rmSync(folder, { recursive: true }))
    const outfile = join(folder, "bundle.cjs")
    const entryPoints = [require.resolve(name)]
    await build({ entryPoints, outfile, bundle: true, minify: true, platform: "node", logLevel: "error" })
    const client = await require(outfile).createClient({ url: server.url }).connect()
    const legacy = client.legacy()
    assert.notEqual(legacy.constructor.name, "RedisLegacyClient")
    const store = new RedisStore({ client: legacy, prefix: ownPrefix() })
    await store.set("a", { cookie: {}, n: 1 })
    assert.equal((await store.get("a")).n, 1)
    await store.close()
    client.destroy()
  })
}
