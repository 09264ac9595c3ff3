// node scripts/try-in-image.mjs IMAGE: scripts/try.mjs on the tarballs in release/, in a Docker image of Node.
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const [image] = process.argv.slice(2)
const redis = image.includes("alpine") ? "apk add redis" : "apt-get update && apt-get install -y redis-server"
const command = `${redis} && node scripts/try.mjs --tarballs release`

try {
  await run("docker", [
    "run",
    "--rm",
    "--volume",
    `${root}:/clone:ro`,
    "--workdir",
    "/clone",
    image,
    "sh",
    "-ec",
    command,
  ])
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
