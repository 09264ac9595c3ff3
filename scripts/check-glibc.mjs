// The newest glibc that a binary asks for, by its version needs (readelf): the floor of what is published.
import { createRequire } from "node:module"

import { output } from "../testing/run.mjs"

const { GLIBC_FLOOR } = createRequire(import.meta.url)("../lib/native/load.js")

const inOrder = (a, b) => a.localeCompare(b, "en", { numeric: true })

/** For example "2.34"; undefined if there is no readelf or nothing of glibc in the file. */
export function neededGlibc(file) {
  const needs = output("readelf", ["--version-info", "--wide", file]) ?? ""
  const versions = [...needs.matchAll(/Name: GLIBC_(\d[\d.]*)/g)].map(([, version]) => version)
  return versions.sort(inOrder).at(-1)
}

if (import.meta.filename === process.argv[1]) {
  const [file] = process.argv.slice(2)
  const needed = file && neededGlibc(file)
  console.log(`${file} needs glibc ${needed}; the floor is ${GLIBC_FLOOR}.`)
  if (needed === undefined || inOrder(needed, GLIBC_FLOOR) > 0) process.exitCode = 1
}
