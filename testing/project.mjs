import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** The folder of this checkout. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** The version in package.json. */
export function version() {
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version
}
