// Publishes the tarballs in release/ with provenance: those of binaries first, because the package itself
// depends on them. Versions that the registry already has are skipped, so that an incomplete release can be
// repeated. With --dry-run npm only prints its actions.
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { root, version } from "../testing/project.mjs"
import { output, run } from "../testing/run.mjs"
import { distTag } from "./release-notes.mjs"

const { values } = parseArgs({ options: { "dry-run": { type: "boolean" } } })
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
    const how = values["dry-run"] ? ["--dry-run"] : ["--provenance"]
    const tag = ["--tag", distTag(version())]
    await run("npm", ["publish", join(release, `${name}${ending}`), ...how, ...tag, "--access", "public"])
  }
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
