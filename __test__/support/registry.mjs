import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"

import { output } from "../../testing/run.mjs"

/** npm's configured registry, or undefined if it does not answer twice. */
export function registryOfThisMachine() {
  const answers = () => output("npm", ["view", "express", "version", "--fetch-retries=0"]) !== undefined
  if (!answers()) {
    console.log("The npm registry did not answer; trying once more.")
    if (!answers()) return undefined
  }
  return output("npm", ["config", "get", "registry"]).trim()
}

/**
 * A registry on loopback that has `packages`: `{ manifest, tarball }`, the path of its file. It redirects
 * requests for all others to `upstream`.
 */
export async function startRegistry(packages, upstream) {
  const published = new Map(packages.map((one) => [one.manifest.name, one]))
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url.slice(1))
    const one = published.get(path.replace(/\/-\/.*/, ""))
    if (one === undefined)
      return response.writeHead(302, { location: new URL(request.url.slice(1), upstream).href }).end()
    if (path.includes("/-/")) return response.end(readFileSync(one.tarball))
    response.setHeader("content-type", "application/json")
    response.end(JSON.stringify(packument(one, `${url}/${path}/-/${path}.tgz`)))
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = `http://127.0.0.1:${server.address().port}`
  return {
    url,
    stop: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

function packument({ manifest, tarball }, url) {
  const { name, version } = manifest
  const integrity = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`
  // An old date: pnpm and yarn refuse versions that are less than some days old.
  const time = "2020-01-01T00:00:00.000Z"
  return {
    name,
    "dist-tags": { latest: version },
    versions: { [version]: { ...manifest, dist: { tarball: url, integrity } } },
    time: { created: time, modified: time, [version]: time },
  }
}
