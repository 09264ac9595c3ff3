// Publishes the tarballs in release/ with provenance: those of binaries first, for the package itself names them.
// What the registry has already is left out, so that a release that broke off can be repeated.
import { readdirSync } from "node:fs"
import { join } from "node:path"

import { root, version } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"

const release = join(root, "release")
const ending = `-${version()}.tgz`
const NAME = "connect-redis-native"

try {
  const names = readdirSync(release)
    .filter((file) => file.endsWith(ending))
    .map((file) => file.slice(0, -ending.length))
  if (!names.includes(NAME)) throw new Error(`release/ has no ${NAME}${ending}.`)
  for (const name of [...names.filter((name) => name !== NAME), NAME]) {
    if (output("npm", ["view", `${name}@${version()}`, "version"])?.trim() === version()) continue
    await run("npm", ["publish", join(release, `${name}${ending}`), "--provenance", "--access", "public"])
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
