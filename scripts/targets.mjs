import { createRequire } from "node:module"

import { targets } from "./pack.mjs"

const { napi } = createRequire(import.meta.url)("../package.json")

/**
 * Every target of a release: `name` has Node's names of platforms and ends the name of its package; `triple` is
 * Rust's.
 */
export const TARGETS = targets({ napi }).map((name, at) => {
  const [platform, arch, abi] = name.split("-")
  return { name, triple: napi.targets[at], platform, arch, libc: { gnu: "glibc", musl: "musl" }[abi] }
})

/** Finds a target by either of its names. */
export function findTarget(wanted) {
  const found = TARGETS.find(({ name, triple }) => wanted === name || wanted === triple)
  if (found) return found
  throw new Error(`TARGET must be one of ${TARGETS.map(({ name }) => name).join(", ")}, got ${wanted}.`)
}
