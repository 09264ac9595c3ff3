// `npm run pack`: the tarballs of a release, in release/: the package itself and one for each binary that
// exists. With --all, a missing binary is an error. With --binaries FOLDER they are taken from there.
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"

import { root } from "../testing/project.mjs"
import { thirdPartyLicenses } from "./licenses.mjs"
import { prepare } from "./prepare.mjs"
import { output, run } from "../testing/run.mjs"

/** Fields that only a clone needs. */
const NOT_PUBLISHED = ["devDependencies", "napi", "overrides", "scripts"]
const LICENSES = "THIRD-PARTY-LICENSES.txt"

/**
 * Packs into the folder `to`. The packages of binaries become optionalDependencies here and not in
 * package.json: no registry has them before a release, and `npm ci` would fail.
 *
 * @returns `{ main, platforms: { target: tarball } }`
 */
export async function pack({ to, binaries = root, all = false, quiet = false }) {
  const stage = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const stdio = quiet ? "ignore" : "inherit"
  try {
    const manifest = { ...readJson(join(root, "package.json")), ...publisher() }
    writeJson(join(stage, "package.json"), manifest)
    const napi = join(root, "node_modules", "@napi-rs", "cli", "dist", "cli.js")
    await run(process.execPath, [napi, "create-npm-dirs"], { cwd: stage, stdio })
    mkdirSync(to, { recursive: true })
    const platforms = {}
    const optionalDependencies = {}
    for (const [at, target] of targets(manifest).entries()) {
      const file = `${manifest.name}.${target}.node`
      if (!existsSync(join(binaries, file))) {
        if (all) throw new Error(`${file} is missing.`)
        continue
      }
      const folder = join(stage, "npm", target)
      copyFileSync(join(binaries, file), join(folder, file))
      copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"))
      writeFileSync(join(folder, LICENSES), thirdPartyLicenses(manifest.napi.targets[at]))
      const platform = readJson(join(folder, "package.json"))
      // lib/native/load.js compares this size to detect a truncated file.
      const config = { bytes: statSync(join(folder, file)).size }
      const files = [...platform.files, LICENSES]
      writeJson(join(folder, "package.json"), { ...platform, files, config })
      optionalDependencies[platform.name] = platform.version
      platforms[target] = npmPack(folder, to)
    }
    rmSync(join(stage, "npm"), { recursive: true })
    for (const name of [...manifest.files, "README.md", "LICENSE"]) {
      cpSync(join(root, name), join(stage, name), { recursive: true })
    }
    for (const name of NOT_PUBLISHED) delete manifest[name]
    writeJson(join(stage, "package.json"), { ...manifest, optionalDependencies })
    return { main: npmPack(stage, to), platforms }
  } finally {
    rmSync(stage, { recursive: true, force: true })
  }
}

/** The repository that a workflow publishes from: npm checks the provenance against it. */
function publisher() {
  const { GITHUB_REPOSITORY, GITHUB_SERVER_URL } = process.env
  if (GITHUB_REPOSITORY === undefined) return {}
  const home = `${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}`
  return {
    repository: { type: "git", url: `git+${home}.git` },
    homepage: `${home}#readme`,
    bugs: { url: `${home}/issues` },
  }
}

/** napi's names of targets: the Rust target without vendor, with Node's names of platforms. */
export function targets({ napi }) {
  const ARCH = { x86_64: "x64", aarch64: "arm64" }
  const SYSTEM = { "apple-darwin": "darwin", "pc-windows-msvc": "win32", "unknown-linux-gnu": "linux" }
  return napi.targets.map((triple) => {
    const [, arch, rest] = /^([^-]+)-(.+)$/.exec(triple)
    const system = SYSTEM[rest.replace("musl", "gnu")]
    const abi = rest.split("-")[2]
    return [system, ARCH[arch], ...(abi === undefined ? [] : [abi])].join("-")
  })
}

function npmPack(folder, to) {
  const printed = output("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", to, folder])
  if (printed === undefined) throw new Error(`"npm pack" of ${folder} failed.`)
  const [{ filename }] = Object.values(JSON.parse(printed))
  return join(to, filename)
}

const readJson = (file) => JSON.parse(readFileSync(file, "utf8"))
const writeJson = (file, value) => writeFileSync(file, `${JSON.stringify(value, undefined, 2)}\n`)

if (import.meta.filename === process.argv[1]) {
  const { values } = parseArgs({ options: { all: { type: "boolean" }, binaries: { type: "string" } } })
  try {
    if (!values.all) await prepare()
    const to = join(root, "release")
    rmSync(to, { recursive: true, force: true })
    const binaries = values.binaries && resolve(values.binaries)
    const { main, platforms } = await pack({ to, binaries, all: values.all })
    for (const file of [main, ...Object.values(platforms)]) console.log(file)
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
