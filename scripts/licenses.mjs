// The licences of the crates that are linked into a binary, with their texts, which must be distributed with it.
import { readFileSync, readdirSync } from "node:fs"
import { dirname, join } from "node:path"

import { root } from "../testing/project.mjs"
import { output } from "../testing/run.mjs"

const TEXT = /^(licen[cs]e|copying|notice|unlicense)/i

/** Every crate in the binary of a Rust target: `{ name, version, license, repository, texts }`, by name. */
export function linkedCrates(triple) {
  const printed = output("cargo", [
    ...["metadata", "--format-version", "1", "--locked", "--filter-platform", triple],
    ...["--manifest-path", join(root, "Cargo.toml")],
  ])
  if (printed === undefined)
    throw new Error('"cargo metadata" failed; check that cargo is installed and Cargo.lock is current.')
  const { packages, resolve } = JSON.parse(printed)
  const packageOf = new Map(packages.map((one) => [one.id, one]))
  const nodeOf = new Map(resolve.nodes.map((node) => [node.id, node]))
  const linked = new Set()
  const visit = (id) => {
    if (linked.has(id) || isProcMacro(packageOf.get(id))) return
    linked.add(id)
    for (const { pkg, dep_kinds: kinds } of nodeOf.get(id).deps) {
      if (kinds.some(({ kind }) => kind === null)) visit(pkg)
    }
  }
  visit(resolve.root)
  linked.delete(resolve.root)
  return Array.from(linked, (id) => packageOf.get(id))
    .map(({ name, version, license, repository, manifest_path: manifest }) => {
      const folder = dirname(manifest)
      const files = readdirSync(folder).filter((file) => TEXT.test(file))
      const texts = files.map((file) => readFileSync(join(folder, file), "utf8").trim())
      return { name, version, license, repository, texts }
    })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

/** Procedural macros run at compile time and are not in the binary. */
function isProcMacro({ targets }) {
  return targets.some(({ kind }) => kind.includes("proc-macro"))
}

/** The text of THIRD-PARTY-LICENSES.txt: each licence text once, below the list of its crates. */
export function thirdPartyLicenses(triple) {
  const crates = linkedCrates(triple)
  const namesOf = new Map()
  for (const { name, texts } of crates) {
    for (const text of texts.length > 0 ? texts : [withoutFile()])
      namesOf.set(text, [...(namesOf.get(text) ?? []), name])
  }
  const list = crates.map(({ name, version, license, repository }) => `${name} ${version}: ${license} (${repository})`)
  const sections = Array.from(namesOf, ([text, names]) => `${names.join(", ")}:\n\n${text}`)
  return `${["The native binary contains these crates.", list.join("\n"), ...sections].join(`\n\n${"-".repeat(80)}\n\n`)}\n`
}

/** napi's crates contain no licence file. They are under MIT, whose text is the same as in our own. */
function withoutFile() {
  const own = readFileSync(join(root, "LICENSE"), "utf8")
  return `MIT License\n\n${own.slice(own.indexOf("Permission is hereby granted")).trim()}`
}
