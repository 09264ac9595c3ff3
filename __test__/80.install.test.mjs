// The packages to publish, installed into empty projects by every package manager.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join, relative } from "node:path"
import { createInterface } from "node:readline"
import { after, before, describe, test } from "node:test"

import * as esbuild from "esbuild"

import { root } from "../testing/project.mjs"
import { blocks } from "./support/markdown.mjs"
import {
  NAME,
  addon,
  base,
  emptyFolder,
  file,
  go,
  here,
  listPacked,
  manifest,
  must,
  npm,
  pnpm,
  project,
  readPacked,
  release,
  server,
  skip,
  tool,
  writeJson,
  yarn,
  yarnProject,
} from "./support/projects.mjs"

const require = createRequire(import.meta.url)
const matrix = []

after(() => {
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

/** An app that requests its own page twice and prints the answers. */
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
/** An unchanged app of connect-redis. */
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
  test("hold the needed files only", () => {
    const sources = readdirSync(join(root, "src"), { recursive: true }).filter((name) => name.endsWith(".rs"))
    const under = (folder) =>
      readdirSync(join(root, folder), { recursive: true })
        .filter((name) => statSync(join(root, folder, name)).isFile())
        .map((name) => `${folder}/${name}`)
    const library = under("lib")
    const pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md", "bench/chart.svg"]
    const rest = [
      "package.json",
      "LICENSE",
      "bin/connect-redis-native.js",
      ...pages,
      ...under("docs"),
      ...under("examples"),
    ]
    const entries = ["index.js", "index.mjs", "index.d.ts", "index.d.mts"]
    const build = ["Cargo.toml", "Cargo.lock", "build.rs", ...sources.map((name) => `src/${name}`)]
    assert.deepEqual(listPacked(release.main).toSorted(), [...rest, ...entries, ...library, ...build].toSorted())
    assert.deepEqual(
      listPacked(release.platforms[here.target]).toSorted(),
      ["package.json", "README.md", "LICENSE", "THIRD-PARTY-LICENSES.txt", file].toSorted(),
    )
  })

  test("have no scripts, and name the binaries by their exact version", () => {
    const main = readPacked(release.main)
    assert.equal(main.scripts, undefined)
    assert.deepEqual(main.optionalDependencies, { [addon]: manifest.version })
    const { scripts, os, cpu, libc, version } = readPacked(release.platforms[here.target])
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
      [release.main, 400],
      [release.platforms[here.target], 2500],
    ]) {
      const size = statSync(tarball).size / 1000
      t.diagnostic(`${relative(join(base, "release"), tarball)}: ${size.toFixed(0)} kB`)
      assert.ok(size < most, `${size} kB`)
    }
  })

  test("pass publint and are-the-types-wrong", async () => {
    await tool(base, "publint/src/cli.js", release.main, "--strict")
    await tool(base, "@arethetypeswrong/cli/dist/index.js", release.main)
  })
})

describe("an Express app on the tarballs", () => {
  row("npm, both tarballs: CommonJS, ESM", async () => {
    const folder = project(APPS)
    await npm(folder, "install", release.main, release.platforms[here.target], ...NEEDED)
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

test("npm run try: the quick start from an empty folder, a session survives a restart", { skip }, async () => {
  const printed = await must(root, process.execPath, "scripts/try.mjs", "--tarballs", join(base, "release"))
  const said = ["first start: visit 1", "first start: visit 2", "after a restart: visit 3", "after a restart: visit 4"]
  assert.ok(printed.endsWith(`${said.join("\n")}\n`), printed)
})

/** Runs a command that starts an app, and requests the printed address twice with the same cookies. */
async function visitTwice(folder, ...[command, ...args]) {
  const child = spawn(command, args, {
    cwd: folder,
    // npm starts the app in a child process: both are in one process group.
    detached: true,
    env: { ...process.env, REDIS_URL: server.url, PORT: "0", NODE_OPTIONS: "" },
    stdio: ["ignore", "pipe", "inherit"],
  })
  const ended = once(child, "exit")
  try {
    let printed = ""
    const address = (async () => {
      for await (const line of createInterface(child.stdout)) {
        printed += `${line}\n`
        const [, url] = /^Open (http:\S+)$/.exec(line) ?? []
        if (url) return url
      }
      return undefined
    })()
    const url = await Promise.race([address, ended.then(() => undefined)])
    assert.ok(url, printed)
    const first = await fetch(url)
    assert.equal(first.status, 200)
    const cookies = first.headers.getSetCookie().map((cookie) => cookie.split(";")[0])
    return [await first.text(), await (await fetch(url, { headers: { cookie: cookies.join("; ") } })).text()]
  } finally {
    process.kill(-child.pid, "SIGTERM")
    await ended
  }
}

describe("the quick starts of README and getting-started.md, pasted into an empty folder", () => {
  const PAGES = ["README.md", "docs/getting-started.md"]
  const isWhole = ({ language, code }) => ["js", "ts"].includes(language) && code.includes(".listen(")
  const kindOf = ({ language, code }) => (language === "ts" ? "mts" : code.includes("require(") ? "cjs" : "mjs")
  let folder
  before(async () => {
    if (skip) return
    folder = project()
    // The commands of getting-started.md, with the tarballs instead of the package's name.
    await npm(folder, "install", release.main, release.platforms[here.target], "express", "express-session")
    const types = ["typescript@5", "@types/express", "@types/express-session", "@types/node"]
    await npm(folder, "install", "--save-dev", ...types)
  })

  for (const page of PAGES) {
    for (const block of blocks(join(root, page)).filter(isWhole)) {
      const kind = kindOf(block)
      row(`${page}: app.${kind}`, async () => {
        const file = `app.${kind}`
        writeFileSync(join(folder, file), `${block.code}\n`)
        if (kind === "mts") {
          const options = ["--module", "nodenext", "--target", "es2022", "--strict", "--skipLibCheck"]
          await must(folder, process.execPath, "node_modules/typescript/bin/tsc", file, ...options)
        }
        assert.deepEqual(await visitTwice(folder, process.execPath, file.replace("mts", "mjs")), ["visit 1", "visit 2"])
      })
    }
  }

  test("exist once in ES modules, CommonJS and TypeScript on each page", () => {
    for (const page of PAGES) {
      assert.deepEqual(blocks(join(root, page)).filter(isWhole).map(kindOf), ["mjs", "cjs", "mts"], page)
    }
  })
})

describe("npm install && npm start, in each example", () => {
  const twice = (text) => [text(1), text(2)]
  const json = (visits) => JSON.stringify({ visits, user: null })
  const cart = JSON.stringify({ user: null, cart: [] })
  const page = readFileSync(join(root, "examples/socket.io/page.html"), "utf8")
  const ANSWERS = {
    fastify: twice(json),
    koa: twice(json),
    nestjs: twice(json),
    passport: [cart, cart],
    "quick-start": twice((visits) => `visit ${visits}`),
    "socket.io": [page, page],
  }
  for (const [name, expected] of Object.entries(ANSWERS)) {
    row(`examples/${name}`, async () => {
      const folder = project()
      cpSync(join(root, "examples", name), folder, { recursive: true })
      await npm(folder, "install")
      assert.deepEqual(await visitTwice(folder, "npm", "start"), expected)
    })
  }

  row("examples/express", async () => {
    const folder = project()
    cpSync(join(root, "examples/express"), folder, { recursive: true })
    await npm(folder, "install")
    const [first, second] = await visitTwice(folder, "npm", "start")
    assert.match(first, /Store: connect-redis-native \(native\)/)
    assert.match(second, /<b>2<\/b> times/)
  })
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
  /** A folder with the bundle and, if it is external, the addon. */
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
    // Warnings about Express's dynamic require are ignored.
    assert.deepEqual(
      warnings.filter(({ moduleName }) => moduleName?.includes(NAME)),
      [],
    )
    await node(place, "bundle.cjs")
  })
})
