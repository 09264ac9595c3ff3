import assert from "node:assert/strict"
import { execFileSync, spawnSync } from "node:child_process"
import { X509Certificate } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { connect } from "node:tls"

import { createClient } from "redis"

import { RedisStore } from "../index.mjs"
import { isVersion1, makeChain, makeSelfSigned } from "../testing/certificates.mjs"
import { lacksTls, makeCertificates } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { freePort, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const { ADOPTED, TABLES } = require("../lib/clients/settings-table.js")
const Redis = require("ioredis")
const session = { cookie: {} }
const skip = await lacksTls()

/** A server with this certificate. */
async function startSecure(certificate, more = []) {
  const port = await freePort()
  const server = await startServer({ args: [...certificate.args(port), ...more] })
  return { ...server, tlsPort: port, tlsUrl: `rediss://127.0.0.1:${port}` }
}

async function failure(options) {
  const store = new RedisStore(options)
  const error = await store.get("sid").then(
    () => assert.fail("no error"),
    (thrown) => thrown,
  )
  await store.close()
  return error
}

async function serves(store) {
  assert.equal(await store.set("sid", { ...session, n: 1 }), null)
  assert.equal((await store.get("sid")).n, 1)
  assert.equal(await store.destroy("sid"), null)
}

/** Runs `body` while the table wrongly marks a setting as adopted. */
async function withoutEntry(table, name, body) {
  const before = TABLES[table][name]
  TABLES[table][name] = ADOPTED
  try {
    await body()
  } finally {
    TABLES[table][name] = before
  }
}

/** Checks that a store serves by its client although it cannot connect itself. */
async function servesByClient(client, close) {
  const store = new RedisStore({ client })
  await serves(store)
  assert.equal(store.native, false)
  assert.equal(store.status, "ready")
  await store.close()
  close()
}

describe("a certificate that is its own ca", { skip }, () => {
  const CERTIFICATES = {
    good: {},
    expired: { days: -1 },
    "for another name": { names: "DNS:other.test" },
  }
  const servers = {}
  before(async () => {
    for (const [name, options] of Object.entries(CERTIFICATES)) {
      const certificate = makeSelfSigned(options)
      servers[name] = { certificate, ...(await startSecure(certificate)) }
    }
  })
  after(async () => {
    for (const { certificate, stop } of Object.values(servers)) {
      await stop()
      certificate.remove()
    }
  })
  const options = (name, more) => ({
    url: servers[name].tlsUrl,
    tls: { ca: servers[name].certificate.cert, ...more },
  })

  test("is trusted", async () => {
    const store = new RedisStore(options("good"))
    await serves(store)
    assert.equal(store.native, true)
    await store.close()
  })

  test("is trusted among others", async () => {
    const others = Object.values(servers).map(({ certificate }) => certificate.cert)
    const store = new RedisStore(options("good", { ca: others.join("") }))
    await serves(store)
    await store.close()
  })

  test("is trusted if it comes from a client's options", async () => {
    const { certificate, tlsUrl } = servers.good
    const client = new Redis(tlsUrl, { tls: { ca: certificate.cert }, lazyConnect: true })
    const store = new RedisStore({ client })
    await serves(store)
    assert.equal(store.native, true)
    await store.close()
    client.disconnect()
  })

  test("is not trusted after its last day", async () => {
    const error = await failure(options("expired"))
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
    assert.match(error.message, /[Ee]xpired.*check the dates/)
  })

  test("is not trusted for another name, but for its own", async () => {
    const error = await failure(options("for another name"))
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
    assert.match(error.message, /set "tls\.servername" to a subject alternative name/)
    const store = new RedisStore(options("for another name", { servername: "other.test" }))
    await serves(store)
    await store.close()
  })

  test("is not trusted if another certificate with the same name is", async () => {
    const error = await failure({ url: servers.good.tlsUrl, tls: { ca: servers.expired.certificate.cert } })
    assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
  })
})

describe("rejectUnauthorized: false", { skip }, () => {
  for (const [name, make] of Object.entries({
    "a certificate of version 1": { version: 1 },
    "a certificate with a P-521 key": { curve: "secp521r1" },
    "an expired certificate for another name": { days: -1, names: "DNS:other.test" },
  })) {
    test(`connects to ${name}`, async (t) => {
      const certificate = makeSelfSigned(make)
      if (make.version === 1 && !isVersion1(certificate.cert))
        return t.skip("this openssl cannot create certificates of version 1")
      const server = await startSecure(certificate)
      const store = new RedisStore({ url: server.tlsUrl, tls: { rejectUnauthorized: false } })
      await serves(store)
      assert.equal(store.native, true)
      await store.close()
      await server.stop()
      certificate.remove()
    })
  }
})

const relabelled = (pem, label) => pem.replace(/(BEGIN|END) CERTIFICATE/g, `$1 ${label}`)
const BROKEN = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
const AUTHORITY = "basicConstraints=critical,CA:TRUE"

/** The contents of `ca` and the chain that the server sends, each with Node's error if Node refuses it. */
const CHAINS = {
  "an authority": { make: {} },
  "an authority that has expired": { make: { ca: { days: -1 } }, refused: "CERT_HAS_EXPIRED" },
  "an issuer with CA:FALSE": {
    make: { ca: { extensions: "basicConstraints=critical,CA:FALSE" } },
    refused: "INVALID_PURPOSE",
  },
  "an authority that must not sign certificates": {
    make: { ca: { extensions: `${AUTHORITY}\nkeyUsage=critical,digitalSignature` } },
    refused: true,
  },
  "an authority for clients only": {
    make: { ca: { extensions: `${AUTHORITY}\nextendedKeyUsage=clientAuth` } },
    refused: "INVALID_PURPOSE",
  },
  "an authority with a critical extension that is unknown": {
    make: { ca: { extensions: `${AUTHORITY}\n1.2.3.4=critical,DER:0500` } },
    refused: true,
  },
  "an authority that permits no intermediate certificate": {
    make: { ca: { extensions: `${AUTHORITY},pathlen:0` }, intermediate: {} },
    chain: ({ cert, intermediate }) => cert + intermediate,
    refused: "PATH_LENGTH_EXCEEDED",
  },
  "an authority that permits one intermediate certificate": {
    make: { ca: { extensions: `${AUTHORITY},pathlen:1` }, intermediate: {} },
    chain: ({ cert, intermediate, ca }) => cert + intermediate + ca,
  },
  "the leaf alone": { make: {}, ca: ({ cert }) => cert, refused: true },
  "an intermediate certificate without its root": {
    make: { intermediate: {} },
    ca: ({ intermediate }) => intermediate,
    refused: true,
  },
  "an intermediate certificate and its root": {
    make: { intermediate: {} },
    ca: ({ intermediate, ca }) => intermediate + ca,
  },
  "an expired intermediate certificate and its root": {
    make: { intermediate: { days: -1 } },
    ca: ({ intermediate, ca }) => intermediate + ca,
    refused: "CERT_HAS_EXPIRED",
  },
  "an intermediate certificate with CA:FALSE, and its root": {
    make: { intermediate: { extensions: "basicConstraints=critical,CA:FALSE" } },
    ca: ({ intermediate, ca }) => intermediate + ca,
    refused: "INVALID_PURPOSE",
  },
  "the root, and the server sends an intermediate certificate that must not sign certificates": {
    make: { intermediate: { extensions: `${AUTHORITY}\nkeyUsage=critical,digitalSignature` } },
    chain: ({ cert, intermediate }) => cert + intermediate,
    refused: true,
  },
  "an authority, for a certificate that must sign certificates only": {
    make: { leaf: { extensions: "keyUsage=critical,keyCertSign" } },
    refused: "INVALID_PURPOSE",
  },
  "an authority, followed by an unreadable certificate": { make: {}, ca: ({ ca }) => ca + BROKEN },
  "an authority after an unreadable certificate": { make: {}, ca: ({ ca }) => BROKEN + ca, refused: true },
  "an authority labelled TRUSTED CERTIFICATE": { make: {}, ca: ({ ca }) => relabelled(ca, "TRUSTED CERTIFICATE") },
  "an authority labelled X509 CERTIFICATE": { make: {}, ca: ({ ca }) => relabelled(ca, "X509 CERTIFICATE") },
}

/** Undefined, or the reason why Node does not connect. */
const refusalOfNode = (port, ca) =>
  new Promise((resolve) => {
    const socket = connect({ host: "localhost", port, ca })
    socket.on("secureConnect", () => resolve(socket.destroy() && undefined))
    socket.on("error", (error) => resolve(error.code))
  })

describe("a ca that is", { skip }, () => {
  for (const [name, { make, ca = (made) => made.ca, chain = (made) => made.cert, refused }] of Object.entries(CHAINS)) {
    test(`${name} is ${refused ? "refused" : "trusted"}, as by Node`, async () => {
      const made = makeChain(make)
      const port = await freePort()
      const server = await startServer({ args: made.args(port, chain(made)) })
      const node = await refusalOfNode(port, ca(made))
      assert.equal(node === undefined, refused === undefined, node)
      if (typeof refused === "string") assert.equal(node, refused)
      const options = { url: `rediss://localhost:${port}`, tls: { ca: ca(made) }, commandTimeoutMs: 500 }
      if (refused) {
        const error = await failure(options)
        assert.match(error.code, /^ERR_REDIS_STORE_(CONNECT|OPTIONS)$/)
      } else {
        const store = new RedisStore(options)
        await serves(store)
        await store.close()
      }
      await server.stop()
      made.remove()
    })
  }
})

/** Certificates that Node accepts and rustls does not, with the error of a store by url. */
const NODE_ONLY = {
  "a certificate of version 1": [{ version: 1 }, [], /version 3.*pass a client/],
  "a certificate that has a common name only": [{ names: "" }, [], /common name does not count/],
  "a certificate with a P-521 key": [{ curve: "secp521r1" }, [], /P-521.*pass a client/],
  "TLS 1.2 with CBC only": [
    {},
    ["--tls-protocols", "TLSv1.2", "--tls-ciphers", "ECDHE-ECDSA-AES128-SHA"],
    /AES-GCM.*pass a client/,
  ],
}

describe("certificates that Node accepts and a native connection refuses", { skip }, () => {
  for (const [name, [make, args, message]] of Object.entries(NODE_ONLY)) {
    test(`${name} is an error by url, and served by a client`, async (t) => {
      const certificate = makeSelfSigned(make)
      if (make.version === 1 && !isVersion1(certificate.cert))
        return t.skip("this openssl cannot create certificates of version 1")
      assert.ok(new X509Certificate(certificate.cert).subject)
      const server = await startSecure(certificate, args)
      const tls = { ca: certificate.cert, servername: "localhost" }
      const error = await failure({ url: server.tlsUrl, tls })
      assert.equal(error.code, "ERR_REDIS_STORE_CONNECT")
      assert.match(error.message, message)
      const redis = createClient({ url: server.tlsUrl, socket: tls }).on("error", () => {})
      await redis.connect()
      await servesByClient(redis, () => redis.destroy())
      const ioredis = new Redis(server.tlsUrl, { tls })
      await until("ioredis", () => ioredis.status === "ready")
      await servesByClient(ioredis, () => ioredis.disconnect())
      await server.stop()
      certificate.remove()
    })
  }
})

test("a P-521 key of our own is an error by url, and served by a client", { skip }, async () => {
  const certificate = makeSelfSigned()
  const own = makeSelfSigned({ curve: "secp521r1" })
  const server = await startSecure(certificate)
  const tls = { ca: certificate.cert, cert: own.cert, key: own.key }
  const error = await failure({ url: server.tlsUrl, tls })
  assert.equal(error.code, "ERR_REDIS_STORE_OPTIONS")
  assert.match(error.message, /"tls\.cert" cannot be used .*pass a client/)
  const redis = createClient({ url: server.tlsUrl, socket: tls }).on("error", () => {})
  await redis.connect()
  await servesByClient(redis, () => redis.destroy())
  await server.stop()
  certificate.remove()
  own.remove()
})

describe("TLS options that only the client supports", { skip }, () => {
  let certificates
  let server
  let folder
  let port
  before(async () => {
    certificates = makeCertificates()
    port = await freePort()
    server = await startServer({ args: certificates.args(port, "yes") })
    folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
    writeFileSync(join(folder, "client.crt"), certificates.cert)
    writeFileSync(join(folder, "client.key"), certificates.key)
    const openssl = (...args) => execFileSync("openssl", args, { cwd: folder, stdio: "ignore" })
    openssl("ec", "-in", "client.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    const pair = ["-inkey", "client.key", "-in", "client.crt"]
    openssl("pkcs12", "-export", ...pair, "-passout", "pass:secret", "-out", "client.pfx")
  })
  after(async () => {
    await server.stop()
    certificates.remove()
    rmSync(folder, { recursive: true, force: true })
  })
  const read = (file) => readFileSync(join(folder, file))
  const pair = () => ({ cert: certificates.cert, key: certificates.key })
  const OPTIONS = {
    checkServerIdentity: [
      () => ({ ca: certificates.ca, servername: "other.test", checkServerIdentity: () => undefined, ...pair() }),
      ["checkServerIdentity"],
    ],
    pfx: [() => ({ ca: certificates.ca, pfx: read("client.pfx"), passphrase: "secret" }), ["pfx", "passphrase"]],
    "an encrypted key": [
      () => ({ ca: certificates.ca, cert: certificates.cert, key: read("locked.key"), passphrase: "secret" }),
      ["key", "passphrase"],
    ],
  }
  for (const [name, [options, entries]] of Object.entries(OPTIONS)) {
    const clients = {
      redis: async () => {
        const client = createClient({ socket: { host: "127.0.0.1", port, tls: true, ...options() } })
        await client.on("error", () => {}).connect()
        return [client, () => client.destroy()]
      },
      ioredis: async () => {
        const client = new Redis({ host: "127.0.0.1", port, tls: options() })
        await until("ioredis", () => client.status === "ready")
        return [client, () => client.disconnect()]
      },
    }
    for (const [client, open] of Object.entries(clients)) {
      const table = client === "redis" ? "nodeRedisTlsSocket" : "tls"
      test(`${name}, by ${client}: delegated`, async () => servesByClient(...(await open())))

      test(`${name}, by ${client}, with a wrong table: served by the client`, async () => {
        let body = async () => servesByClient(...(await open()))
        for (const entry of entries) {
          const inner = body
          body = () => withoutEntry(table, entry, inner)
        }
        await body()
      })
    }
  }
})

/** Runs a program in a process of its own, and returns what it prints. */
function printed(program, { env = {}, wrap = [] } = {}) {
  const [command, ...args] = [...wrap, process.execPath, "--eval", program]
  const ran = spawnSync(command, args, { env: { ...process.env, NODE_EXTRA_CA_CERTS: "", ...env }, encoding: "utf8" })
  assert.equal(ran.status, 0, ran.stderr)
  return ran.stdout
}

describe("without a ca", { skip }, () => {
  let certificates
  let server
  let port
  let ca
  before(async () => {
    certificates = makeCertificates()
    port = await freePort()
    server = await startServer({ args: certificates.args(port) })
    ca = join(server.folder, "ca.pem")
    writeFileSync(ca, certificates.ca)
  })
  after(async () => {
    await server.stop()
    certificates.remove()
  })
  const library = JSON.stringify(require.resolve("../index.js"))
  const program = (before = "", options = "{}") => `
    ${before}
    const { RedisStore } = require(${library})
    const url = "rediss://localhost:${port}"
    new RedisStore({ url, ...${options} }).set("sid", { cookie: {} }).then(console.log, (error) => console.log(error.code, error.message))`
  const giving = `require("node:tls").getCACertificates = () => [require("node:fs").readFileSync(process.env.OWN_CA, "utf8")]`

  test("NODE_TLS_REJECT_UNAUTHORIZED=0 applies unless the option is set", () => {
    const env = { NODE_TLS_REJECT_UNAUTHORIZED: "0", NODE_NO_WARNINGS: "1" }
    assert.equal(printed(program(), { env }), "null\n")
    assert.match(printed(program("", "{ tls: { rejectUnauthorized: true } }"), { env }), /UnknownIssuer/)
    assert.match(printed(program()), /UnknownIssuer/)
  })

  test("inherited options do not turn verification off, as in Node", () => {
    const polluted = "Object.prototype.rejectUnauthorized = false"
    const inherited = "new (class { get rejectUnauthorized() { return false } })()"
    const made = "Object.create({ rejectUnauthorized: false })"
    const settings = [
      [polluted, "{}"],
      [polluted, "{ tls: true }"],
      [polluted, "{ tls: { servername: 'localhost' } }"],
      ["", `{ tls: ${inherited} }`],
      ["", `{ tls: ${made} }`],
    ]
    for (const [before, options] of settings) {
      assert.match(printed(program(before, options)), /^ERR_REDIS_STORE_CONNECT .*UnknownIssuer/)
      const node = `${before}
        const { tls } = ${options}
        require("node:tls").connect(Object.assign(Object.create(tls && tls !== true ? Object.getPrototypeOf(tls) : {}), { host: "localhost", port: ${port} }))
          .on("secureConnect", () => process.exit(console.log("connected")))
          .on("error", (error) => console.log(error.code))`
      assert.equal(printed(node), "SELF_SIGNED_CERT_IN_CHAIN\n")
    }
    assert.equal(printed(program("", "{ tls: { rejectUnauthorized: false } }")), "null\n")
  })

  test("a server's own certificate in NODE_EXTRA_CA_CERTS is trusted", async () => {
    const certificate = makeSelfSigned()
    const secure = await startSecure(certificate)
    const file = join(secure.folder, "own.pem")
    writeFileSync(file, certificate.cert)
    const other = program().replace(`:${port}`, `:${secure.tlsPort}`)
    assert.match(printed(other), /^ERR_REDIS_STORE_CONNECT/)
    assert.equal(printed(other, { env: { NODE_EXTRA_CA_CERTS: file } }), "null\n")
    await secure.stop()
    certificate.remove()
  })

  test("the roots of Node are trusted", () => {
    assert.equal(printed(program(giving), { env: { OWN_CA: ca } }), "null\n")
  })

  const EMPTY = 'mount -t tmpfs none /etc/ssl && exec "$@"'
  const wrap = ["unshare", "--map-root-user", "--mount", "sh", "-c", EMPTY, "sh"]
  const lacks =
    spawnSync(wrap[0], [...wrap.slice(1), "true"]).status === 0 ? undefined : "no mount namespace is permitted here"
  test("and /etc/ssl: the roots of Node and NODE_EXTRA_CA_CERTS are trusted", { skip: lacks }, () => {
    assert.match(printed(program(), { wrap }), /^ERR_REDIS_STORE_CONNECT .*UnknownIssuer/)
    assert.equal(printed(program(giving), { wrap, env: { OWN_CA: ca } }), "null\n")
    assert.equal(printed(program(), { wrap, env: { NODE_EXTRA_CA_CERTS: ca } }), "null\n")
  })

  test("and /etc/ssl: the contract suite passes", { skip: lacks }, () => {
    const suite = join(import.meta.dirname, "10.contract.test.mjs")
    const [command, ...args] = [...wrap, process.execPath, "--test", suite]
    const { NODE_TEST_CONTEXT: _own, MATRICES: _matrices, ...env } = process.env
    const ran = spawnSync(command, args, { env: { ...env, NODE_EXTRA_CA_CERTS: "" }, encoding: "utf8" })
    assert.equal(ran.status, 0, ran.stdout)
    assert.match(ran.stdout, /^# pass [1-9]/m)
    assert.match(ran.stdout, /^# fail 0$/m)
  })
})
