// Installs the newest release of each major of each client that package.json has for tests, newer than the lock file's.
import { readFileSync } from "node:fs"
import { join } from "node:path"

import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"
import { prepare } from "./prepare.mjs"

const CLIENT = /^(redis|ioredis|iovalkey|@valkey\/valkey-glide|@upstash\/redis|ioredis-mock|redis-mock)(-\d+)*$/

try {
  await prepare()
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  const clients = Object.keys(devDependencies).filter((name) => CLIENT.test(name))
  await run("npm", ["update", "--no-save", "--no-audit", "--no-fund", ...clients], { cwd: root })
  // For names without a major, also the next major.
  const latest = clients.filter((name) => !/-\d+$/.test(name)).map((name) => `${name}@latest`)
  await run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--force", ...latest], { cwd: root })
  await run("npm", ["ls", "--depth=0", ...clients], { cwd: root })
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
