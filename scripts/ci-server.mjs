// node scripts/ci-server.mjs NAME [VERSION]: a server for the steps after this one of a GitHub job. On Linux it
// comes from the server's Docker image, on macOS from Homebrew (its current version). On Windows, which Redis
// does not support, it is Memurai.
import { appendFileSync, mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { output, run } from "../testing/run.mjs"

const IMAGES = { redis: "redis", valkey: "valkey/valkey" }

const WAYS = {
  async linux(name, version) {
    // Debian 12's glibc is older than that of the runner, so its binaries run here.
    const image = `${IMAGES[name]}:${version}-bookworm`
    const folder = mkdtempSync(join(tmpdir(), "server-"))
    await run("docker", ["create", "--name", "server", image])
    for (const program of ["server", "cli"]) {
      await run("docker", ["cp", `server:/usr/local/bin/${name}-${program}`, folder])
    }
    await run("docker", ["rm", "server"])
    tell("CONNECT_REDIS_NATIVE_SERVER", join(folder, `${name}-server`))
  },
  async darwin(name) {
    await run("brew", ["install", name])
    tell("CONNECT_REDIS_NATIVE_SERVER", join(output("brew", ["--prefix", name]).trim(), "bin", `${name}-server`))
  },
  async win32() {
    await run("choco", ["install", "memurai-developer", "--yes", "--no-progress"])
    tell("REDIS_URL", "redis://127.0.0.1:6379")
  },
}

function tell(variable, value) {
  appendFileSync(process.env.GITHUB_ENV, `${variable}=${value}\n`)
  console.log(`${variable}=${value}`)
}

try {
  const [name, version] = process.argv.slice(2)
  await WAYS[process.platform](name, version)
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
