import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/**
 * A certificate that signs itself, as `openssl req -x509` makes it. `names` is the subjectAltName, empty for
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
    /** Arguments of a server that speaks TLS only, on `port`. */
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
