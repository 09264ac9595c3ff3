import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/**
 * A self-signed certificate, as `openssl req -x509` creates it. `names` is the subjectAltName, empty for
 * none; `version` 1 has no extensions at all; `days` may be negative: expired.
 */
export function makeSelfSigned({
  names = "DNS:localhost,IP:127.0.0.1",
  curve = "prime256v1",
  version = 3,
  days = 2,
} = {}) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const path = (file) => join(folder, file)
  const openssl = (...args) => execFileSync("openssl", args.map(String), { cwd: folder, stdio: "ignore" })
  openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", "own.key")
  openssl("req", "-new", "-key", "own.key", "-subj", "/CN=localhost", "-out", "own.csr")
  if (version === 1) {
    openssl("x509", "-req", "-in", "own.csr", "-signkey", "own.key", "-days", days, "-out", "own.crt")
  } else {
    const lines = ["basicConstraints=critical,CA:TRUE", ...(names === "" ? [] : [`subjectAltName=${names}`])]
    writeFileSync(path("own.ext"), `${lines.join("\n")}\n`)
    const sign = ["x509", "-req", "-in", "own.csr", "-signkey", "own.key", "-days", days]
    openssl(...sign, "-extfile", "own.ext", "-out", "own.crt")
  }
  return {
    cert: readFileSync(path("own.crt"), "utf8"),
    key: readFileSync(path("own.key"), "utf8"),
    /** Arguments of a server with TLS only, on `port`. */
    args: (port) => [
      ...["--tls-port", port, "--tls-cert-file", path("own.crt"), "--tls-key-file", path("own.key")],
      ...["--tls-ca-cert-file", path("own.crt"), "--tls-auth-clients", "no"],
    ],
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** Whether `text` is a certificate of X.509 version 1. */
export function isVersion1(text) {
  const options = { input: text, encoding: "utf8" }
  return /Version: 1 /.test(execFileSync("openssl", ["x509", "-noout", "-text"], options))
}

/**
 * A server's certificate, an authority, and perhaps an intermediate one between them. Each of `ca`, `intermediate` and
 * `leaf` may have `extensions` (lines of openssl) and `days`, negative for expired.
 */
export function makeChain({ ca = {}, intermediate, leaf = {} } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const path = (file) => join(folder, file)
  const openssl = (...args) => execFileSync("openssl", args.map(String), { cwd: folder, stdio: "ignore" })
  const make = (name, signer, extensions, days = 2) => {
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", `${name}.key`)
    openssl("req", "-new", "-key", `${name}.key`, "-subj", `/CN=${name}`, "-out", `${name}.csr`)
    writeFileSync(path(`${name}.ext`), extensions)
    const sign = signer ? ["-CA", `${signer}.crt`, "-CAkey", `${signer}.key`, "-CAcreateserial"] : []
    const own = signer ? [] : ["-signkey", `${name}.key`]
    const how = [...sign, ...own, "-days", days, "-extfile", `${name}.ext`]
    openssl("x509", "-req", "-in", `${name}.csr`, ...how, "-out", `${name}.crt`)
    return readFileSync(path(`${name}.crt`), "utf8")
  }
  const authority = "basicConstraints=critical,CA:TRUE"
  const made = { ca: make("ca", undefined, ca.extensions ?? authority, ca.days) }
  if (intermediate) made.intermediate = make("int", "ca", intermediate.extensions ?? authority, intermediate.days)
  const names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
  const signer = intermediate ? "int" : "ca"
  made.cert = make("leaf", signer, [names, leaf.extensions].filter(Boolean).join("\n"), leaf.days)
  return {
    ...made,
    /** Arguments of a server with TLS only, on `port`, and sends `chain`. */
    args: (port, chain = made.cert) => {
      writeFileSync(path("chain.crt"), chain)
      return [
        ...["--tls-port", port, "--tls-cert-file", path("chain.crt"), "--tls-key-file", path("leaf.key")],
        ...["--tls-ca-cert-file", path("ca.crt"), "--tls-auth-clients", "no", "--port", 0],
      ]
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
