// node scripts/check-binary.mjs TARGET FILE: checks that the binary is for that target and needs only libraries
// that every such system has: glibc 2.17 or musl, the DLLs of Windows, the libraries of macOS.
import { createRequire } from "node:module"
import { join } from "node:path"

import { lief, python } from "./cross-tools.mjs"
import { root } from "../testing/project.mjs"
import { output } from "../testing/run.mjs"
import { findTarget } from "./targets.mjs"

const { GLIBC_FLOOR } = createRequire(import.meta.url)("../lib/native/load.js")
/** The oldest macOS that Node 20 runs on, by processor. */
const MACOS_FLOOR = { x64: "10.15", arm64: "11.0" }
const FORMATS = { linux: "ELF", win32: "PE", darwin: "Mach-O" }
const LIBRARIES = {
  glibc: /^(lib(c|m|dl|rt|pthread|gcc_s)|ld-linux-[a-z0-9-]+)\.so\.\d$/,
  musl: /^libc\.so$/,
  // Not VCRUNTIME140.dll: it comes with Visual C++'s redistributable.
  win32:
    /^(api-ms-win-.*|advapi32|bcrypt|bcryptprimitives|crypt32|dbghelp|kernel32|ncrypt|ntdll|ole32|oleaut32|secur32|shell32|ucrtbase|user32|userenv|ws2_32)\.dll$/i,
  darwin: /^\/(usr\/lib|System\/Library\/Frameworks)\//,
}

const inOrder = (a, b) => a.localeCompare(b, "en", { numeric: true })

/**
 * `{ format, processor, libraries, exports }`; for ELF also `versions` and `paths`, for Mach-O `macos` and `signed`.
 * Null if the file is none of these.
 */
export async function readBinary(file) {
  const printed = output(python(), [join(root, "scripts", "read-binary.py"), file], { env: await lief() })
  if (printed === undefined) throw new Error(`${file} could not be read by LIEF.`)
  return JSON.parse(printed)
}

/** The newest glibc version that a binary needs, for example "2.34"; undefined if it needs none. */
export async function neededGlibc(file) {
  return newestGlibc(await readBinary(file))
}

function newestGlibc(facts) {
  const versions = facts?.versions?.map((version) => /^GLIBC_(\d[\d.]*)$/.exec(version)?.[1]) ?? []
  return versions.filter(Boolean).sort(inOrder).at(-1)
}

/** Throws an Error that lists all faults; otherwise resolves to a summary of the needs. */
export async function checkBinary(file, { name, platform, arch, libc }) {
  const facts = await readBinary(file)
  const format = FORMATS[platform]
  if (facts?.format !== format) throw new Error(`${file} is ${facts?.format ?? "no binary"}; ${name} has ${format}.`)
  const needs = []
  const wrong = []
  const refuse = (bad, text) => bad && wrong.push(text)
  refuse(facts.processor !== arch, `it is for ${facts.processor}`)
  refuse(!facts.exports.some((symbol) => /^_?napi_register_module_v1$/.test(symbol)), "it exports no Node module")
  const foreign = facts.libraries.filter((library) => !LIBRARIES[libc ?? platform].test(library))
  refuse(foreign.length > 0, `it needs ${foreign.join(", ")}`)
  if (format === "ELF") refuse(facts.paths.length > 0, "it has its own library search path")
  if (libc === "glibc") {
    const glibc = newestGlibc(facts)
    needs.push(`glibc ${glibc}`)
    refuse(glibc === undefined || inOrder(glibc, GLIBC_FLOOR) > 0, `it needs glibc ${glibc}`)
  }
  if (format === "Mach-O") {
    const macos = facts.macos.join(".")
    needs.push(`macOS ${macos}`)
    refuse(inOrder(macos, MACOS_FLOOR[arch]) > 0, `it needs macOS ${macos}`)
    // macOS ends a process that loads a binary without a signature; the linker's is enough.
    refuse(arch === "arm64" && !facts.signed, "it has no signature")
  }
  if (wrong.length > 0) throw new Error(`${file} does not serve ${name}: ${wrong.join("; ")}.`)
  if (format === "PE") return `${facts.libraries.length} DLLs of Windows`
  return [...needs, ...facts.libraries].join(", ")
}

if (import.meta.filename === process.argv[1]) {
  const [name, file] = process.argv.slice(2)
  try {
    console.log(`${file} needs ${await checkBinary(file, findTarget(name))}.`)
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
