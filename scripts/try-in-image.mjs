// node scripts/try-in-image.mjs IMAGE TARGET: scripts/try.mjs and scripts/smoke-target.mjs on the tarballs in release/, in a
// Docker image of Node. Redis runs in its own image, so nothing is installed into the other.
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const SERVER = "redis:8-bookworm"
const NETWORK = ["--network", "host"]

const [image, target] = process.argv.slice(2)
const tries = ["try.mjs", `smoke-target.mjs ${target}`].map((script) => `node scripts/${script} --tarballs release`)

try {
  await run("docker", ["run", "--rm", "--detach", "--name", "redis", ...NETWORK, SERVER, "--bind", "127.0.0.1"])
  try {
    const clone = ["--volume", `${root}:/clone:ro`, "--workdir", "/clone"]
    const env = ["--env", "REDIS_URL=redis://127.0.0.1:6379"]
    await run("docker", ["run", "--rm", ...NETWORK, ...clone, ...env, image, "sh", "-ec", tries.join(" && ")])
  } finally {
    await run("docker", ["stop", "redis"])
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
