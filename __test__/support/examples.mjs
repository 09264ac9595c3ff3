// The apps of examples/, each started in its own folder with its own node_modules.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

import { root } from "../../testing/project.mjs"
import { output } from "../../testing/run.mjs"

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))
const { files, name: NAME } = readJson(join(root, "package.json"))

/** The installed package for a dependency of an example: NestJS needs the decorators of TypeScript 5. */
const INSTALLED_AS = { typescript: "typescript-5" }

/** Copies the package at `path`. A symbolic link would resolve modules beside its target. */
export function installPackage(path) {
  const binaries = readdirSync(root).filter((name) => name.endsWith(".node"))
  for (const name of ["package.json", ...files, ...binaries]) {
    cpSync(join(root, name), join(path, name), { recursive: true })
  }
}

/** The example `name` in an empty folder, with exactly the packages of its package.json, at their locked versions. */
export function layOutExample(name) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  cpSync(join(root, "examples", name), folder, { recursive: true })
  const { dependencies, devDependencies, scripts } = readJson(join(folder, "package.json"))
  for (const needed of Object.keys({ ...dependencies, ...devDependencies })) {
    const path = join(folder, "node_modules", needed)
    mkdirSync(dirname(path), { recursive: true })
    if (needed === NAME) installPackage(path)
    else symlinkSync(join(root, "node_modules", INSTALLED_AS[needed] ?? needed), path, "junction")
  }
  const [start, compile] = scripts.start.split(" && ").toReversed()
  if (compile === "tsc") {
    const tsc = join(folder, "node_modules", "typescript", "bin", "tsc")
    if (output(process.execPath, [tsc, "-p", folder]) === undefined) throw new Error(`${name} does not compile.`)
  }
  return { folder, script: start.replace(/^node /, ""), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** Starts an example. Resolves to the address that it prints, and `stop`, which resolves to its exit code. */
export async function startExample({ folder, script }, env) {
  const child = spawn(process.execPath, [script], {
    cwd: folder,
    env: { ...process.env, NODE_ENV: "test", PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000,
  })
  let printed = ""
  let ended = false
  const exit = once(child, "exit").then(([code]) => {
    ended = true
    return code
  })
  const address = new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => {
        printed += data
        const [, url] = /^Open (http:\S+)$/m.exec(printed) ?? []
        if (url) resolve(url)
      })
    }
  })
  const url = await Promise.race([address, exit])
  if (ended) throw new Error(`${script} ended with ${url}:\n${printed}`)
  return {
    url,
    stop() {
      child.kill()
      return exit
    },
  }
}
