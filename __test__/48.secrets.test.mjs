// Canaries in every secret, and every way to fail: no canary may be printed or reported.
import assert from "node:assert/strict"
import { test } from "node:test"

import { freePort, ownServer, startServer } from "./support/servers.mjs"
import { script } from "./support/script.mjs"

const CANARIES = {
  password: "canary-password-5f0c",
  sid: "canary-sid-91ab",
  value: "canary-value-d3e7",
  key: "canary-private-key-77aa",
}

const server = ownServer({}, (client) =>
  client.sendCommand(["ACL", "SETUSER", "app", "on", `>${CANARIES.password}`, "~*", "+@all", "-expire", "-pexpire"]),
)

/** The code of a process in which every value is a canary and everything fails. */
const provoke = ({ urls, canaries }) => `
  import { inspect } from "node:util"
  const urls = ${JSON.stringify(urls)}
  const { password, sid, value, key } = ${JSON.stringify(canaries)}
  const session = { cookie: {}, value }
  const app = { username: "app", password, prefix: "canaries:", commandTimeoutMs: 300 }
  const tell = (what) => console.log(inspect(what, { depth: Infinity, showHidden: true }), String(what?.stack))
  process.on("warning", tell)
  async function using(options, act) {
    try {
      const store = new RedisStore(options)
      for (const event of ["error", "ready", "reconnecting", "end", "connect", "disconnect", "conflict"]) {
        store.on(event, (detail) => tell([event, detail]))
      }
      for (const result of await Promise.allSettled(await act(store))) {
        tell(result.reason)
        tell(result.reason?.cause)
      }
      tell(store)
      console.log(JSON.stringify(store))
      await store.close()
      await store.get(sid).catch(tell)
    } catch (error) {
      tell(error)
    }
  }
  const each = (store) => [
    store.set(sid, session), store.get(sid), store.touch(sid, session), store.destroy(sid),
    store.all(), store.length(), store.ids(), store.clear(),
  ]
  // Commands that the server refuses, quoting their arguments.
  await using({ ...app, url: urls.server }, each)
  await using({ ...app, url: urls.bare, username: undefined, password: undefined }, each)
  await using({ ...app, url: urls.nobody }, each)
  // Wrong credentials: in options, in a URL, in the result of a function.
  await using({ ...app, url: urls.server, username: "nobody" }, each)
  await using({ url: urls.server.replace("//", "//nobody:" + password + "@") }, each)
  await using({ url: urls.server, credentials: () => ({ username: "nobody", password }) }, each)
  await using({ url: urls.server, credentials: () => { throw new Error("the vault is sealed") } }, each)
  // Wrong options.
  await using({ url: "redis://app:" + password + "@host:not-a-port" }, each)
  await using({ url: "http://app:" + password + "@host" }, each)
  await using({ ...app, password: [password], url: urls.server }, each)
  await using({ ...app, url: urls.server, tls: { key, cert: key } }, each)
  // Sessions that cannot be stored or read.
  const serializer = { stringify: JSON.stringify, parse: (text) => { throw new SyntaxError("no good: " + text) } }
  await using({ ...app, url: urls.server, serializer }, async (store) => {
    await store.set(sid, session)
    return [store.get(sid), store.all()]
  })
  await using({ ...app, url: urls.server, maxSessionBytes: 10 }, each)
  await using({ ...app, url: urls.server, maxPending: 1 }, each)
  await using({ ...app, url: urls.server, maxPendingBytes: 1 }, each)
  await using({ ...app, url: urls.server, ttl: () => { throw new Error("no ttl") } }, each)
  await using({ ...app, url: urls.server }, (store) => [
    store.set(sid + "\\ud800", session), store.get(sid.repeat(500)), store.get({ sid }), store.set(sid, value),
    store.set(sid, { cookie: {}, get value() { throw new Error("a getter's own") } }),
  ])
`

test("no secret is in an error, an event, a warning, a store or other output", async () => {
  // A server without these commands quotes them with their arguments.
  const gone = ["GET", "SET", "PEXPIRE", "DEL", "MGET", "SCAN", "UNLINK"].flatMap((name) => [
    "--rename-command",
    name,
    "",
  ])
  const bare = await startServer({ args: gone })
  const urls = { server: server.url, bare: bare.url, nobody: `redis://127.0.0.1:${await freePort()}` }
  const { exitCode, printed, errors } = await script(provoke({ urls, canaries: CANARIES }), {
    NODE_DEBUG: "connect-redis-native",
  })
  assert.equal(exitCode, 0, errors)
  for (const code of ["SERVER", "AUTH", "CONNECT", "OPTIONS", "DECODE", "QUEUE_FULL", "CLOSED"]) {
    assert.ok(printed.includes(`ERR_REDIS_STORE_${code}`), `${code} was provoked`)
  }
  for (const [kind, canary] of Object.entries(CANARIES)) {
    const said = printed + errors
    const at = said.indexOf(canary)
    assert.equal(at, -1, `a ${kind} was printed: ${said.slice(Math.max(0, at - 300), at)}`)
  }
  await bare.stop()
})
