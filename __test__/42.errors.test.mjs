import assert from "node:assert/strict"
import { createServer } from "node:net"
import { after, describe, test } from "node:test"

import { RedisStore, RedisStoreError } from "../index.mjs"
import { ownPrefix, ownServer, startServer } from "./support/servers.mjs"

const PASSWORD = "p@ss:w/ör%d"
const session = { cookie: { originalMaxAge: null } }

const guarded = ownServer({}, (client) =>
  client.sendCommand(["ACL", "SETUSER", "app", "on", `>${PASSWORD}`, "~*", "&*", "+@all"]),
)
const opened = []
after(() => Promise.all(opened.map((store) => store.close())))

function open(options) {
  const store = new RedisStore({ prefix: ownPrefix(), ...options })
  opened.push(store)
  return store
}

describe("an error of the server has its message and a code", () => {
  const secrets = [PASSWORD, "wrong-secret", "the-session-id", "the-session-value"]
  async function failure(options, method = (store) => store.get("the-session-id")) {
    const store = open({ commandTimeoutMs: 20_000, ...options })
    const error = await method(store).then(
      () => assert.fail("no error"),
      (thrown) => thrown,
    )
    assert.ok(error instanceof RedisStoreError)
    for (const secret of secrets) {
      assert.ok(!`${error.message} ${error.cause?.message} ${error.stack}`.includes(secret))
    }
    return error
  }

  test("an unreachable host: CONNECT, with the system's error", async () => {
    const error = await failure({ url: "redis://:wrong-secret@127.0.0.1:1", commandTimeoutMs: 500 })
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
    assert.match(
      error.message,
      /(?:Redis at 127\.0\.0\.1:1 does not answer; requests are refused until it does|No connection to Redis at 127\.0\.0\.1:1 within 500 ms)\. Could not connect.*refused/,
    )
    assert.match(error.cause.message, /refused/)
  })

  test("a host name that does not exist: CONNECT", async () => {
    // A label that is too long for DNS fails without a query.
    const error = await failure({ url: `redis://${"no-such-host".repeat(6)}.invalid`, commandTimeoutMs: 500 })
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
  })

  test("a wrong password: AUTH, without waiting for the deadline", async () => {
    const error = await failure({
      url: guarded.url.replace("//", "//app:wrong-secret@"),
      commandTimeoutMs: 2 ** 31 - 1,
    })
    assert.equal(error.code, "ERR_REDIS_STORE_AUTH")
    assert.match(error.message, /refused the credentials/)
  })

  test("a wrong password is AUTH even if the deadline comes before the next attempt", async () => {
    const store = open({ url: guarded.url.replace("//", "//app:wrong-secret@"), commandTimeoutMs: 100 })
    await store.get("sid").catch(() => {})
    for (let n = 0; n < 8; n++) await assert.rejects(store.get("sid"), { code: "ERR_REDIS_STORE_AUTH" })
  })

  test("a missing password: AUTH", async () => {
    const server = await startServer({ args: ["--requirepass", PASSWORD] })
    const error = await failure({ url: server.url })
    assert.equal(error.code, "ERR_REDIS_STORE_AUTH")
    const store = open({ url: server.url.replace("//", `//:${encodeURIComponent(PASSWORD)}@`) })
    assert.equal(await store.set("sid", session), null)
    await store.close()
    await server.stop()
  })

  test("a user without permission: AUTH, and neither key nor value in the message", async () => {
    await guarded.client.sendCommand(["ACL", "SETUSER", "reader", "on", ">wrong-secret", "~*", "+get", "+client|id"])
    const url = guarded.url.replace("//", "//reader:wrong-secret@")
    const error = await failure({ url }, (store) => store.set("the-session-id", { v: "the-session-value" }))
    assert.equal(error.code, "ERR_REDIS_STORE_AUTH")
    assert.match(error.message, /Redis refused SET: NOPERM/)
  })

  test("a database that does not exist: CONNECT", async () => {
    const error = await failure({ url: `${guarded.url}/999`, commandTimeoutMs: 1000 })
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
    assert.match(error.message, /refused the connection \(SELECT\): ERR DB index is out of range/)
  })

  const STRANGERS = {
    "speaks HTTP": (socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"),
    "does not reply": () => {},
    "hangs up": (socket) => socket.destroy(),
    "sends noise": (socket) => socket.write(Buffer.from([0, 255, 13, 10, 7, 33])),
  }
  for (const [habit, serve] of Object.entries(STRANGERS)) {
    test(`a server that ${habit}: CONNECT`, async () => {
      const sockets = new Set()
      const stranger = createServer((socket) => {
        sockets.add(socket.on("error", () => {}))
        serve(socket)
      })
      await new Promise((resolve) => stranger.listen(0, "127.0.0.1", resolve))
      const error = await failure({
        url: `redis://127.0.0.1:${stranger.address().port}`,
        connectTimeoutMs: 200,
        commandTimeoutMs: 1000,
      })
      assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
      for (const socket of sockets) socket.destroy()
      stranger.close()
    })
  }

  test("an error of the server: SERVER, without the arguments that Redis quotes", async () => {
    const server = await startServer({ args: ["--rename-command", "SET", ""] })
    const error = await failure({ url: server.url }, (store) => store.set("the-session-id", { v: "the-session-value" }))
    assert.equal(error.code, "ERR_REDIS_STORE_SERVER")
    assert.match(error.message, /Redis refused SET: ERR unknown command/)
    await server.stop()
  })

  test("a server without UNLINK, CLIENT and ROLE works", async () => {
    const without = ["UNLINK", "CLIENT", "ROLE"].flatMap((name) => ["--rename-command", name, ""])
    const server = await startServer({ args: without })
    const store = open({ url: server.url, clientName: "name" })
    const ids = Array.from({ length: 1200 }, (_, n) => `s${n}`)
    await Promise.all(ids.map((sid) => store.set(sid, session)))
    assert.equal(await store.length(), 1200)
    assert.equal(await store.clear(), null)
    assert.equal(await store.length(), 0)
    await store.close()
    await server.stop()
  })

  test("a key of another type: SERVER", async () => {
    const prefix = ownPrefix()
    await guarded.client.hSet(`${prefix}the-session-id`, "a", "b")
    const error = await failure({ url: guarded.url, prefix })
    assert.equal(error.code, "ERR_REDIS_STORE_SERVER")
    assert.match(error.message, /WRONGTYPE/)
  })
})
