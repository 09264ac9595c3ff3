// What is published, installed into empty projects by every package manager, and what it says when that
// went wrong.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { after, before, describe, test } from "node:test"

import * as esbuild from "esbuild"

import { pack, targets } from "../scripts/pack.mjs"
import { root } from "../scripts/prepare.mjs"
import { output } from "../scripts/run.mjs"
import { registryOfThisMachine, startRegistry } from "./support/registry.mjs"
import { ownServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const manifest = require("../package.json")
const { system } = require("../lib/load.js")
const here = system()
const NAME = "connect-redis-native"
const addon = `${NAME}-${here.target}`
const file = `${NAME}.${here.target}.node`

const upstream = registryOfThisMachine()
const skip = upstream === undefined && "express cannot be installed: the npm registry does not answer"
const server = ownServer()
const base = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
const matrix = []
let packed
let registry
let folders = 0

before(async () => {
  packed = await pack({ to: join(base, "release"), quiet: true })
  registry = await startRegistry(published(), upstream)
})
after(() => {
  registry.stop()
  rmSync(base, { recursive: true, force: true })
  if (matrix.length === 0) return
  const width = Math.max(...matrix.map(({ name }) => name.length))
  console.log(`\nAn Express app on the installed tarballs (${here.target}, Node ${process.version}):`)
  for (const { name, passed } of matrix) console.log(`  ${name.padEnd(width)}  ${passed ? "passed" : "FAILED"}`)
})

/** A test that is a row of the matrix. */
function row(name, body) {
  test(name, { skip }, async () => {
    const entry = { name, passed: false }
    matrix.push(entry)
    await body()
    entry.passed = true
  })
}

/** The main package and those of all platforms; of other systems there is only what a package manager reads. */
function published() {
  const names = targets(manifest).map((target) => `${NAME}-${target}`)
  const main = readPacked(packed.main)
  main.optionalDependencies = Object.fromEntries(names.map((name) => [name, manifest.version]))
  return [
    { manifest: main, tarball: repacked(packed.main, (folder) => writeJson(join(folder, "package.json"), main)) },
    ...targets(manifest).map((target) => {
      const tarball = packed.platforms[target] ?? foreign(target)
      return { manifest: readPacked(tarball), tarball }
    }),
  ]
}

/** The tarball of a system whose binary was not built here: its package.json, as napi makes it. */
function foreign(target) {
  const [os, cpu, abi] = target.split("-")
  const libc = { gnu: ["glibc"], musl: ["musl"] }[abi]
  return repacked(packed.platforms[here.target], (folder) => {
    rmSync(join(folder, file))
    const own = readJson(join(folder, "package.json"))
    delete own.libc
    writeJson(join(folder, "package.json"), {
      ...own,
      name: `${NAME}-${target}`,
      os: [os],
      cpu: [cpu],
      ...(libc && { libc }),
    })
  })
}

function repacked(tarball, change) {
  const folder = emptyFolder()
  assert.notEqual(output("tar", ["xzf", tarball, "-C", folder]), undefined)
  change(join(folder, "package"))
  const printed = output("npm", [
    "pack",
    "--json",
    "--ignore-scripts",
    "--pack-destination",
    folder,
    join(folder, "package"),
  ])
  return join(folder, Object.values(JSON.parse(printed))[0].filename)
}

const readPacked = (tarball) => JSON.parse(output("tar", ["xzOf", tarball, "package/package.json"]))
const listPacked = (tarball) =>
  output("tar", ["tzf", tarball])
    .trim()
    .split("\n")
    .map((name) => name.replace("package/", ""))
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))
const writeJson = (path, value) => writeFileSync(path, JSON.stringify(value, undefined, 2))

function emptyFolder() {
  const folder = join(base, `project-${++folders}`)
  mkdirSync(folder)
  return folder
}

function project(files = {}) {
  const folder = emptyFolder()
  writeJson(join(folder, "package.json"), { name: "app", version: "1.0.0", private: true })
  writeFileSync(join(folder, ".npmrc"), `registry=${registry.url}/\n`)
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

/** Runs to the end; resolves to what was printed, with `code`. */
function go(folder, command, args, env = {}) {
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_(OPTIONS|TEST_CONTEXT)$/i.test(name)),
  )
  const child = spawn(command, args, {
    cwd: folder,
    env: {
      ...clean,
      CI: "1",
      REDIS_URL: server.url,
      npm_config_cache: join(base, "npm-cache"),
      YARN_GLOBAL_FOLDER: join(base, "yarn"),
      XDG_DATA_HOME: join(base, "pnpm-data"),
      XDG_CACHE_HOME: join(base, "pnpm-cache"),
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  })
  let stdout = ""
  child.stdout.on("data", (data) => (stdout += data))
  let stderr = ""
  child.stderr.on("data", (data) => (stderr += data))
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (code) => resolve({ code, stdout, stderr }))
  })
}

async function must(folder, command, ...args) {
  const { code, stdout, stderr } = await go(folder, command, args)
  assert.equal(code, 0, `${[command, ...args].join(" ")}\n${stdout}\n${stderr}`)
  return stdout
}

const npm = (folder, ...args) => must(folder, "npm", ...args)
const pnpm = (folder, ...args) => must(folder, process.execPath, join(root, "node_modules/pnpm/bin/pnpm.cjs"), ...args)
const yarn = (folder, ...args) =>
  must(folder, process.execPath, join(root, "node_modules/@yarnpkg/cli-dist/bin/yarn.js"), ...args)
const tool = (folder, path, ...args) => must(folder, process.execPath, join(root, "node_modules", path), ...args)

function yarnProject(nodeLinker, files) {
  const folder = project(files)
  const settings = [
    `nodeLinker: ${nodeLinker}`,
    `npmRegistryServer: "${registry.url}"`,
    `unsafeHttpWhitelist: ["127.0.0.1"]`,
    "enableTelemetry: false",
    "enableImmutableInstalls: false",
    "pnpEnableEsmLoader: true",
  ]
  writeFileSync(join(folder, ".yarnrc.yml"), `${settings.join("\n")}\n`)
  writeFileSync(join(folder, "yarn.lock"), "")
  return folder
}

/** An app that visits itself twice and prints what it answered. */
const app = (imports) => `${imports}
const store = new RedisStore({ url: process.env.REDIS_URL, prefix: "app" + process.pid + ":" })
const app = express()
app.use(session({ store, secret: "test", resave: false, saveUninitialized: false }))
app.get("/", (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.json({ visits: req.session.visits, native: store.native })
})
${visits}`
const visits = `const listener = app.listen(0, "127.0.0.1", async () => {
  const url = "http://127.0.0.1:" + listener.address().port
  const first = await fetch(url)
  const second = await fetch(url, { headers: { cookie: first.headers.get("set-cookie").split(";")[0] } })
  console.log(JSON.stringify([await first.json(), await second.json()]))
  listener.closeAllConnections()
  listener.close()
  await store.close()
})
`
const commonjs = app(`const express = require("express")
const session = require("express-session")
const { RedisStore } = require("${NAME}")`)
const esm = app(`import express from "express"
import session from "express-session"
import { RedisStore } from "${NAME}"`)
/** Not a word of it is ours. */
const unchanged = `import express from "express"
import session from "express-session"
import { createClient } from "redis"
import { RedisStore } from "connect-redis"
const client = createClient({ url: process.env.REDIS_URL })
await client.connect()
const store = new RedisStore({ client, prefix: "alias" + process.pid + ":" })
const app = express()
app.use(session({ store, secret: "test", resave: false, saveUninitialized: false }))
app.get("/", (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.json({ visits: req.session.visits, native: store.native })
})
${visits.replace("await store.close()", "await store.close()\n  await client.close()")}`
const APPS = { "app.cjs": commonjs, "app.mjs": esm }
const NEEDED = ["express@5", "express-session@1"]
const TWICE = [
  { visits: 1, native: true },
  { visits: 2, native: true },
]

async function serves(folder, ...command) {
  const { code, stdout, stderr } = await go(folder, command[0], command.slice(1))
  assert.equal(code, 0, stderr)
  assert.deepEqual(JSON.parse(stdout), TWICE)
  assert.equal(stderr, "")
}
const node = (folder, name) => serves(folder, process.execPath, name)

describe("the tarballs", () => {
  test("hold what is needed, and nothing else", () => {
    const sources = readdirSync(join(root, "src"), { recursive: true }).filter((name) => name.endsWith(".rs"))
    const library = readdirSync(join(root, "lib")).map((name) => `lib/${name}`)
    const rest = ["package.json", "README.md", "CHANGELOG.md", "LICENSE", "bin/connect-redis-native.js"]
    const entries = ["index.js", "index.mjs", "index.d.ts", "index.d.mts"]
    const build = ["Cargo.toml", "Cargo.lock", "build.rs", ...sources.map((name) => `src/${name}`)]
    assert.deepEqual(listPacked(packed.main).toSorted(), [...rest, ...entries, ...library, ...build].toSorted())
    assert.deepEqual(
      listPacked(packed.platforms[here.target]).toSorted(),
      ["package.json", "README.md", "LICENSE", file].toSorted(),
    )
  })

  test("have no scripts, and name the binaries by their exact version", () => {
    const main = readPacked(packed.main)
    assert.equal(main.scripts, undefined)
    assert.deepEqual(main.optionalDependencies, { [addon]: manifest.version })
    const { scripts, os, cpu, libc, version } = readPacked(packed.platforms[here.target])
    assert.deepEqual(
      { scripts, os, cpu, libc, version },
      {
        scripts: undefined,
        os: [here.platform],
        cpu: [here.arch],
        libc: here.libc && [here.libc],
        version: manifest.version,
      },
    )
  })

  test("are small", (t) => {
    for (const [tarball, most] of [
      [packed.main, 150],
      [packed.platforms[here.target], 2500],
    ]) {
      const size = statSync(tarball).size / 1000
      t.diagnostic(`${relative(join(base, "release"), tarball)}: ${size.toFixed(0)} kB`)
      assert.ok(size < most, `${size} kB`)
    }
  })

  test("please publint and are-the-types-wrong", async () => {
    await tool(base, "publint/src/cli.js", packed.main, "--strict")
    await tool(base, "@arethetypeswrong/cli/dist/index.js", packed.main)
  })
})

describe("an Express app on the tarballs", () => {
  row("npm, both tarballs: CommonJS, ESM", async () => {
    const folder = project(APPS)
    await npm(folder, "install", packed.main, packed.platforms[here.target], ...NEEDED)
    for (const name of Object.keys(APPS)) await node(folder, name)
  })

  row("npm: CommonJS, ESM, with a lock file made for another system", async () => {
    const folder = project(APPS)
    await npm(folder, "install", "--package-lock-only", "--os=darwin", "--cpu=arm64", NAME, ...NEEDED)
    await npm(folder, "ci")
    for (const name of Object.keys(APPS)) await node(folder, name)
  })

  row("npm: an unchanged connect-redis app, by connect-redis@npm:connect-redis-native", async () => {
    const folder = project({ "app.mjs": unchanged })
    await npm(folder, "install", `connect-redis@npm:${NAME}`, "redis@6", ...NEEDED)
    await node(folder, "app.mjs")
  })

  row("pnpm: CommonJS, ESM, unchanged", async () => {
    const folder = project({ ...APPS, "unchanged.mjs": unchanged })
    await pnpm(folder, "add", NAME, `connect-redis@npm:${NAME}`, "redis@6", ...NEEDED)
    for (const name of [...Object.keys(APPS), "unchanged.mjs"]) await node(folder, name)
  })

  for (const linker of ["node-modules", "pnp"]) {
    row(`yarn, ${linker}: CommonJS, ESM, unchanged`, async () => {
      const folder = yarnProject(linker, { ...APPS, "unchanged.mjs": unchanged })
      await yarn(folder, "add", NAME, `connect-redis@npm:${NAME}@latest`, "redis@6", ...NEEDED)
      assert.equal(existsSync(join(folder, "node_modules")), linker === "node-modules")
      const run = [process.execPath, join(root, "node_modules/@yarnpkg/cli-dist/bin/yarn.js"), "node"]
      for (const name of [...Object.keys(APPS), "unchanged.mjs"]) await serves(folder, ...run, name)
    })
  }
})

test("npm run try: ten lines from an empty folder, a session survives a restart", { skip }, async () => {
  const release = join(base, "release")
  const printed = await must(root, process.execPath, "scripts/try.mjs", "--tarballs", release)
  const said = ["first start: visit 1", "first start: visit 2", "after a restart: visit 3", "after a restart: visit 4"]
  assert.ok(printed.endsWith(`${said.join("\n")}\n`), printed)
  const lines = readFileSync(join(root, "examples/ten-lines/app.mjs"), "utf8")
  assert.ok(readFileSync(join(root, "README.md"), "utf8").includes(`\`\`\`js\n${lines}\`\`\`\n`))
})

describe("TypeScript, strict", () => {
  const typescript = `import express from "express"
import session, { type Store } from "express-session"
import RedisStoreByDefault, { RedisStore, type RedisStoreOptions } from "${NAME}"
declare module "express-session" {
  interface SessionData {
    visits: number
  }
}
const options: RedisStoreOptions = { url: process.env.REDIS_URL!, prefix: "ts" + process.pid + ":" }
const store: Store & RedisStore = new RedisStore(options)
const same: typeof RedisStore = RedisStoreByDefault
if (same !== RedisStore) throw new Error("two classes")
const app = express()
app.use(session({ store, secret: "test", resave: false, saveUninitialized: false }))
app.get("/", (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.json({ visits: req.session.visits, native: store.native })
})
${visits
  .replace("listener.address().port", "(listener.address() as { port: number }).port")
  .replace('first.headers.get("set-cookie")', 'first.headers.get("set-cookie")!')}`
  const [seven, five] = ["typescript", "typescript-5"].map((name) => [
    `TypeScript ${require(`${name}/package.json`).version}`,
    `${name}/bin/tsc`,
  ])
  const RESOLUTIONS = [
    [...five, "node", "commonjs", "app.ts"],
    [...five, "node16", "node16", "app.cts"],
    [...five, "node16", "node16", "app.mts"],
    [...five, "bundler", "esnext", "app.mts"],
    [...seven, "node16", "node16", "app.cts"],
    [...seven, "node16", "node16", "app.mts"],
    [...seven, "nodenext", "nodenext", "app.mts"],
    [...seven, "bundler", "esnext", "app.mts"],
  ]
  let folder
  before(async () => {
    if (skip) return
    folder = project()
    const types = ["@types/express@5", "@types/express-session@1", "@types/node@26"]
    await npm(folder, "install", NAME, ...NEEDED, ...types)
  })
  for (const [version, tsc, moduleResolution, module, name] of RESOLUTIONS) {
    row(`${version}, moduleResolution ${moduleResolution}, ${name}`, async () => {
      writeFileSync(join(folder, name), typescript)
      const compilerOptions = {
        strict: true,
        exactOptionalPropertyTypes: true,
        moduleResolution,
        module,
        target: "es2022",
        esModuleInterop: true,
        types: ["node"],
        outDir: "out",
      }
      writeJson(join(folder, "tsconfig.json"), { compilerOptions, files: [name] })
      await tool(folder, tsc)
      await node(folder, join("out", name.replace("ts", "js")))
      rmSync(join(folder, name))
      rmSync(join(folder, "out"), { recursive: true })
    })
  }
})

describe("bundled into one file", () => {
  let folder
  before(async () => {
    if (skip) return
    folder = project(APPS)
    await npm(folder, "install", NAME, ...NEEDED)
  })
  /** Where a bundle is deployed: it and, if it is external, the addon. */
  function deployed({ external }) {
    const place = emptyFolder()
    if (external) cpSync(join(folder, "node_modules", addon), join(place, "node_modules", addon), { recursive: true })
    return place
  }
  const quietly = { bundle: true, platform: "node", logLevel: "silent" }

  row("esbuild, the addon external", async () => {
    for (const entry of Object.keys(APPS)) {
      const place = deployed({ external: true })
      const { warnings } = await esbuild.build({
        ...quietly,
        absWorkingDir: folder,
        entryPoints: [entry],
        outfile: join(place, "bundle.cjs"),
        external: [`${NAME}-*`],
      })
      assert.deepEqual(warnings, [])
      await node(place, "bundle.cjs")
    }
  })

  row("esbuild, the addon copied by its loader", async () => {
    const place = deployed({ external: false })
    await esbuild.build({
      ...quietly,
      absWorkingDir: folder,
      entryPoints: ["app.cjs"],
      outfile: join(place, "bundle.cjs"),
      loader: { ".node": "copy" },
    })
    await node(place, "bundle.cjs")
  })

  row("webpack, the addon external", async () => {
    const place = deployed({ external: true })
    const webpack = require("webpack")
    const stats = await new Promise((resolve, reject) => {
      const options = {
        context: folder,
        mode: "production",
        target: "node",
        entry: "./app.cjs",
        output: { path: place, filename: "bundle.cjs" },
        externals: [
          ({ request }, done) => (request.startsWith(`${NAME}-`) ? done(null, `commonjs ${request}`) : done()),
        ],
      }
      webpack(options, (error, result) => (error ? reject(error) : resolve(result)))
    })
    const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true })
    assert.deepEqual(errors, [])
    // Those of Express's own dynamic require are not ours.
    assert.deepEqual(
      warnings.filter(({ moduleName }) => moduleName?.includes(NAME)),
      [],
    )
    await node(place, "bundle.cjs")
  })
})

describe("when no binary loads, the error says", () => {
  const tell = `const { RedisStore } = require("${NAME}")
try {
  new RedisStore({ url: process.env.REDIS_URL }).close()
  console.log("loaded")
} catch ({ name, code, message }) {
  console.log(JSON.stringify({ name, code, message }))
}
`
  const FOREIGN = here.platform === "darwin" ? ["linux", "x64", "glibc"] : ["darwin", "arm64"]
  const [os, cpu] = FOREIGN
  const said = async (folder) => {
    const printed = JSON.parse(await must(folder, process.execPath, "tell.cjs"))
    assert.deepEqual([printed.name, printed.code], ["TypeError", "ERR_REDIS_STORE_OPTIONS"])
    const { message } = printed
    assert.match(message, new RegExp(`^The native binary of ${NAME} ${manifest.version} could not be loaded\\.`))
    const libc = here.glibc
      ? `, glibc ${here.glibc} \\(prebuilt binaries need 2\\.17 or newer\\)`
      : here.libc
        ? ", musl"
        : ""
    assert.match(message, new RegExp(`^System: ${here.platform} ${here.arch}${libc}, Node ${process.version}$`, "m"))
    assert.match(message, /^- from source, with Rust 1\.88 or newer: npx connect-redis-native build$/m)
    return message
  }
  /** What the message tells users of `manager` to run. */
  const advice = (message, manager) => new RegExp(`^- ${manager}: (.*?)(?:, or set .*)?$`, "m").exec(message)[1]
  const loads = async (folder, ...run) => {
    const { stdout, stderr } = await go(
      folder,
      ...(run.length > 0 ? [run[0], run.slice(1)] : [process.execPath, ["tell.cjs"]]),
    )
    assert.equal(stdout, "loaded\n", stderr)
  }

  test("that the package is missing, and npm's command brings it", { skip }, async () => {
    const folder = project({ "tell.cjs": tell })
    await npm(folder, "install", `--os=${os}`, `--cpu=${cpu}`, NAME, "express-session@1")
    const message = await said(folder)
    assert.match(message, new RegExp(`^- ${addon}: Cannot find module '${addon}/package.json'$`, "m"))
    assert.match(message, /^It was left out, or installed for another system\. To fix it:$/m)
    const [command, ...args] = advice(message, "npm").split(" ")
    await must(folder, command, ...args)
    await loads(folder)
  })

  test("pnpm's command, which brings it", { skip }, async () => {
    const folder = project({ "tell.cjs": tell })
    await pnpm(folder, "add", `--os=${os}`, `--cpu=${cpu}`, NAME, "express-session@1")
    const [, ...args] = advice(await said(folder), "pnpm").split(" ")
    await pnpm(folder, ...args)
    await loads(folder)
  })

  test("yarn's command, which brings it", { skip }, async () => {
    const folder = yarnProject("node-modules", { "tell.cjs": tell })
    await yarn(folder, "config", "set", "--json", "supportedArchitectures", JSON.stringify({ os: [os], cpu: [cpu] }))
    await yarn(folder, "add", NAME, "express-session@1")
    const command = advice(await said(folder), "yarn")
    const [, json] = /^yarn config set --json supportedArchitectures '(.*)' && yarn install$/.exec(command)
    await yarn(folder, "config", "set", "--json", "supportedArchitectures", json)
    await yarn(folder, "install")
    await loads(folder)
  })

  describe("of a package that is there", { skip }, () => {
    let folder
    let binary
    let whole
    before(async () => {
      folder = project({ "tell.cjs": tell })
      await npm(folder, "install", NAME, "express-session@1", "redis@6")
      binary = join(folder, "node_modules", addon, file)
      whole = readFileSync(binary)
    })

    /** Changes the installed package, and back. */
    async function damaged(path, content, check) {
      const before = readFileSync(path)
      writeFileSync(path, content)
      try {
        await check(await said(folder))
      } finally {
        writeFileSync(path, before)
      }
      await loads(folder)
    }
    const dlopenError = (message) => new RegExp(`^- ${addon}: (.*)$`, "m").exec(message)[1]
    const DAMAGED = /^It was damaged, or installed for another system\. To fix it, delete node_modules, then:$/m

    test(
      "that the file is for another architecture",
      { skip: here.platform !== "linux" && "it is an ELF file" },
      async () => {
        const other = Buffer.from(whole)
        // e_machine: 62 is x86-64, 183 is AArch64.
        other.writeUInt16LE(here.arch === "x64" ? 183 : 62, 18)
        await damaged(binary, other, (message) => {
          assert.match(message, DAMAGED)
          assert.match(dlopenError(message), /cannot open shared object file|wrong ELF|invalid ELF|incompatible/i)
        })
      },
    )

    test("that the file is truncated", async () => {
      for (const length of [100, 20_000]) {
        await damaged(binary, whole.subarray(0, length), (message) => {
          assert.match(message, DAMAGED)
          assert.equal(dlopenError(message), `the file has ${length} bytes, it should have ${whole.length}`)
        })
      }
    })

    test("that the versions differ", async () => {
      const path = join(folder, "node_modules", addon, "package.json")
      const old = JSON.stringify({ ...readJson(path), version: "0.0.9" })
      await damaged(path, old, (message) => {
        assert.match(message, DAMAGED)
        assert.equal(dlopenError(message), `is of version 0.0.9, needed is ${manifest.version}`)
      })
    })

    test(
      "which glibc is needed and which is there",
      { skip: here.libc !== "glibc" && "this system has none" },
      async () => {
        const versions = whole.toString("latin1").match(/GLIBC_2\.\d\d(?=\0)/g)
        const newest = versions.sort().at(-1)
        const newer = Buffer.from(whole.toString("latin1").replaceAll(newest, "GLIBC_2.99"), "latin1")
        await damaged(binary, newer, (message) => {
          assert.match(dlopenError(message), /version `GLIBC_2\.99' not found/)
          const what = `It needs glibc 2.99, this system has ${here.glibc}: use a newer one, or build.`
          assert.ok(message.includes(`\n${what}\nTo fix it:\n- from source`), message)
        })
      },
    )

    test("what is wrong with a binary that was built beside it", async () => {
      const path = join(folder, "node_modules", NAME, file)
      writeFileSync(path, "no binary")
      const { code, stdout } = await go(folder, process.execPath, ["tell.cjs"])
      assert.deepEqual([code, stdout], [0, "loaded\n"])
      rmSync(join(folder, "node_modules", addon), { recursive: true })
      const message = await said(folder)
      assert.match(
        message,
        new RegExp(`^- ${file.replaceAll(".", "\\.")} in the package: .*(invalid|not a|too short)`, "m"),
      )
      rmSync(path)
    })

    test("the same in the one warning of stores that do without", async () => {
      const code = `
        const { RedisStore } = require("${NAME}")
        const client = require("redis").createClient({ url: process.env.REDIS_URL })
        client.connect()
        const store = new RedisStore({ client })
        store.set("sid", { cookie: {} }).then(() => store.get("sid")).then((found) => {
          console.log(store.native, JSON.stringify(found))
          client.close()
        })`
      const { stdout, stderr } = await go(folder, process.execPath, ["-e", code])
      assert.equal(stdout, 'false {"cookie":{}}\n')
      assert.match(stderr, /\[CONNECT_REDIS_NATIVE_FALLBACK\] Warning: The native binary of .*could not be loaded/)
      assert.match(stderr, /Until then, stores use the commands of the client they are given\./)
    })

    test(
      "how to build it from source, which works",
      { skip: output("cargo", ["--version"]) === undefined && "there is no cargo here" },
      async () => {
        await said(folder)
        // With what npm test has compiled already.
        const env = { CARGO_TARGET_DIR: join(root, "target") }
        const { code, stderr } = await go(folder, "npx", [NAME, "build"], env)
        assert.equal(code, 0, stderr)
        await loads(folder)
      },
    )
  })
})
