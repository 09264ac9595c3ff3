// Compares index.d.ts with what the package exports, and compiles __test__/types with TypeScript 5.9 and 7, in the settings that applications use.
// - parity/: compiles with connect-redis 10's own types, and with ours in their place
// - own/: features that connect-redis does not have
// - imports/: every form of import, resolved by package.json
// - fastify/: without types of express-session
// With --quick TypeScript 5.9 compiles one program only.
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"

import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const AT_ONCE = 2
const quick = process.argv.includes("--quick")
const types = join(root, "__test__", "types")
const generated = join(types, "generated")
const modules = join(root, "node_modules")
const temporary = mkdtempSync(join(tmpdir(), "connect-redis-native-"))

const COMPILERS = { 5.9: join(modules, "typescript-5/bin/tsc"), 7: join(modules, "typescript/bin/tsc") }
const OURS = join(root, "index.d.ts")
const THEIRS = join(modules, "connect-redis/dist/connect-redis.d.cts")

const NODE10 = { module: "commonjs", moduleResolution: "node10" }
const NODE16 = { module: "node16", moduleResolution: "node16" }
const NODENEXT = { module: "nodenext", moduleResolution: "nodenext" }
const BUNDLER = { module: "esnext", moduleResolution: "bundler", verbatimModuleSyntax: true }

/** Maps both package names to the types of one package, for every file of a program. */
const as = (declarations) => ({ paths: { "connect-redis": [declarations], "connect-redis-native": [declarations] } })
const both = { ...as(OURS), include: ["parity/*.ts", "own/*.ts"] }
const packages = { include: ["parity/packages/*.ts"] }
const resolved = { paths: {}, types: ["node"] }
const [skipLibCheck, exactOptionalPropertyTypes] = [true, true]

/** One row for each program: the compilers, and the settings in addition to __test__/types/tsconfig.json. */
const PROGRAMS = [
  ...[NODE16, NODENEXT, BUNDLER].flatMap((resolution) => [
    [[7], { ...both, ...resolution }],
    [[7], { ...both, ...resolution, skipLibCheck }],
    [[7], { ...both, ...resolution, exactOptionalPropertyTypes }],
    [[7], { ...both, ...resolution, skipLibCheck, exactOptionalPropertyTypes }],
  ]),
  [[5.9], { ...both, ...NODE10 }],
  [[5.9], { ...both, ...NODE16, exactOptionalPropertyTypes }],
  [[5.9], { ...both, ...NODENEXT, skipLibCheck }],
  [[5.9], { ...both, ...BUNDLER, skipLibCheck, exactOptionalPropertyTypes }],
  [[5.9, 7], { ...as(THEIRS), ...NODE16, include: ["parity/*.ts"], skipLibCheck }],
  [[7], { ...as(THEIRS), ...packages, ...NODE16, skipLibCheck }],
  [[7], { ...as(OURS), ...packages, ...NODE16 }],
  [[5.9], { ...as(OURS), ...packages, ...NODE16, skipLibCheck, exactOptionalPropertyTypes }],
  [[5.9, 7], { ...resolved, ...NODE16, include: ["imports/*.cts"], verbatimModuleSyntax: true }],
  [[5.9, 7], { ...resolved, ...NODE16, include: ["imports/*.mts"], verbatimModuleSyntax: true }],
  [[7], { ...resolved, ...BUNDLER, include: ["imports/*.mts"] }],
  [[5.9], { ...as(OURS), ...NODE10, include: ["imports/no-interop/*.ts"], esModuleInterop: false }],
  [
    [5.9, 7],
    { ...resolved, ...NODE16, include: ["imports/javascript/*"], allowJs: true, checkJs: true, declaration: false },
  ],
  [[5.9, 7], { folder: fastify("without"), ...resolved, ...NODENEXT, include: ["*.mts"] }],
  [[7], { folder: fastify("without"), ...resolved, ...BUNDLER, include: ["*.mts"], skipLibCheck }],
  [[7], { folder: fastify("untyped"), ...resolved, ...NODE16, include: ["*.mts"] }],
]

try {
  rmSync(generated, { recursive: true, force: true })
  mkdirSync(generated)
  const all = PROGRAMS.flatMap(([versions, settings]) => versions.map((version) => ({ version, settings })))
  const old = all.filter(({ version }) => version < 7)
  // TypeScript 5.9 takes most of the time.
  const runs = [...(quick ? old.slice(0, 1) : old), ...all.filter(({ version }) => version >= 7)]
  const failures = []
  const next = async () => {
    for (let row = runs.shift(); row !== undefined; row = runs.shift()) {
      const printed = await compile(row, `tsconfig.${runs.length}.json`)
      if (printed !== undefined) failures.push(printed)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, next))
  if (failures.length > 0) {
    console.error(failures.join("\n"))
    process.exitCode = 1
  }
  await run(process.execPath, ["scripts/check-exports.mjs"], { cwd: root })
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  rmSync(generated, { recursive: true, force: true })
  rmSync(temporary, { recursive: true, force: true })
}

/** A project of @fastify/session outside of this one, where express-session is absent or has no types. */
function fastify(name) {
  const folder = mkdtempSync(join(temporary, name))
  const own = join(folder, "node_modules", "connect-redis-native")
  mkdirSync(own, { recursive: true })
  for (const file of ["package.json", "index.d.ts", "index.d.mts"]) cpSync(join(root, file), join(own, file))
  cpSync(join(types, "fastify"), folder, { recursive: true })
  const linked = ["fastify", "@fastify", "@types/node", ...(name === "untyped" ? ["express-session"] : [])]
  for (const linkedName of linked) {
    const link = join(folder, "node_modules", linkedName)
    mkdirSync(join(link, ".."), { recursive: true })
    symlinkSync(join(modules, linkedName), link, "junction")
  }
  return folder
}

/** Compiles one program. Returns what the compiler printed if it found an error. */
async function compile({ version, settings: { folder, include, ...compilerOptions } }, file) {
  const base = folder ?? types
  const project = join(folder ?? generated, file)
  const text = {
    extends: relative(join(project, ".."), join(types, "tsconfig.json")),
    compilerOptions,
    include: include.map((pattern) => join(base, pattern)),
    exclude: [],
  }
  writeFileSync(project, JSON.stringify(text))
  const child = spawn(process.execPath, [COMPILERS[version], "-p", project], { cwd: root })
  let printed = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (printed += data))
  const code = await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve))
  if (code === 0) return undefined
  return `TypeScript ${version}, ${JSON.stringify({ include, ...compilerOptions })}:\n${printed}`
}
