// Every code block of the READMEs and of docs/ runs and has the documented effect.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { after, before, describe, test } from "node:test"
import { fileURLToPath, pathToFileURL } from "node:url"

import { createClient } from "redis"

import { lacksTls, makeCertificates, startCluster, startSentinels } from "../testing/topologies.mjs"
import { until } from "../testing/until.mjs"
import { blocks, sides } from "./support/markdown.mjs"
import { freePort, ownServer, startServer } from "./support/servers.mjs"

const require = createRequire(import.meta.url)
const root = fileURLToPath(new URL("..", import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
const given = pathToFileURL(join(root, "__test__", "support", "given.mjs")).href
const ts = require("typescript-5")
const { OPTIONS } = require("../lib/options/options.js")
const { errorCodes } = require("../lib/native/protocol.js").loadProtocol()

const FILES = [
  ...["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"],
  ...readdirSync(join(root, "examples")).map((name) => `examples/${name}/README.md`),
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
]
const DOCUMENTS = FILES.map((name) => ({ name, found: blocks(join(root, name)) }))

const server = ownServer({}, (client) => client.sendCommand("ACL SETUSER user on >password ~* &* +@all".split(" ")))

/** The servers that the documents name, and their addresses here. Each is started if a block names it. */
const PLACES = [
  { names: /localhost:6379/, start: async () => ({ "localhost:6379": `127.0.0.1:${server.port}` }) },
  {
    names: /"localhost", port: 6379/,
    start: async () => ({ '"localhost", port: 6379': `"127.0.0.1", port: ${server.port}` }),
  },
  {
    names: /10\.0\.0\.\d(:|", port: )6379/,
    start: async () => {
      const cluster = await startCluster({ replicas: 0 })
      closers.push(cluster.stop)
      return nodesAt(6379, cluster.nodes)
    },
  },
  {
    names: /10\.0\.0\.\d(:|", port: )26379/,
    start: async () => {
      const sentinels = await startSentinels({ password: "password" })
      closers.push(sentinels.stop)
      return nodesAt(26379, sentinels.nodes)
    },
  },
  {
    names: /\/run\/redis\/redis\.sock/,
    start: async () => {
      const path = join(server.folder, "redis.sock")
      const own = await startServer({ args: ["--unixsocket", path] })
      closers.push(own.stop)
      return { "/run/redis/redis.sock": path }
    },
  },
  {
    names: /redis\.example\.com/,
    start: async () => {
      const port = await freePort()
      const user = ["--user", "user", "on", ">password", "~*", "&*", "+@all"]
      const own = await startServer({ port: 0, args: [...certificates.args(port, "optional"), ...user] })
      closers.push(own.stop)
      return { "redis.example.com:6380": `localhost:${port}` }
    },
  },
  {
    names: /cluster\.example\.com/,
    start: async () => {
      const port = await freePort()
      const args = ["--cluster-enabled", "yes", "--tls-cluster", "yes", ...certificates.args(port)]
      const own = await startServer({ port: 0, args })
      closers.push(own.stop)
      const admin = createClient({ socket: { host: "localhost", port, tls: true, ca: certificates.ca } })
      await admin.connect()
      await admin.sendCommand(["CLUSTER", "ADDSLOTS", ...Array.from({ length: 16384 }, (_, slot) => String(slot))])
      await until("a working cluster", async () =>
        /cluster_state:ok/.test(await admin.sendCommand(["CLUSTER", "INFO"])),
      )
      await admin.close()
      return { "cluster.example.com:6379": `localhost:${port}` }
    },
  },
]

function nodesAt(port, nodes) {
  const places = nodes.map((node, at) => [
    [`10.0.0.${at + 1}:${port}`, `${node.host}:${node.port}`],
    [`10.0.0.${at + 1}", port: ${port}`, `${node.host}", port: ${node.port}`],
  ])
  return Object.fromEntries(places.flat())
}

/** The default addresses that clients in the documents use. */
const USUAL = [
  [/\bcreateClient\(\)/g, "createClient({ url: process.env.REDIS_URL })"],
  [/\bnew Redis\(\)/g, "new Redis(process.env.REDIS_URL)"],
]

/** The packages that the diffs of docs/migrating.md refer to. */
const RELEASES = {
  "From 9 and 10": { "connect-redis": "connect-redis", redis: "redis" },
  "From 8": { "connect-redis": "connect-redis-8", ioredis: "ioredis-5" },
  "From 7": { "connect-redis": "connect-redis-7", redis: "redis-4" },
  "From 4, 5 and 6": { "connect-redis": "connect-redis-6", redis: "redis-3" },
  "From 3": { "connect-redis": "connect-redis-3" },
}

/** The files that the READMEs of examples import. */
const EXAMPLES = Object.fromEntries(
  ["opentelemetry/trace-redis-store.mjs", "prometheus/metrics.mjs"].map((file) => [
    `"./${basename(file)}"`,
    `"${pathToFileURL(join(root, "examples", file)).href}"`,
  ]),
)

const closers = []
let certificates
let noTls
const started = new Map()

before(async () => {
  noTls = await lacksTls()
  if (noTls) return
  certificates = makeCertificates()
  closers.push(certificates.remove)
})

after(async () => {
  for (const close of closers.toReversed()) await close()
})

/** The files of the apps in examples/, which 57.examples.test.mjs runs. */
const APPS = readdirSync(join(root, "examples"), { recursive: true })
  .filter((name) => /\.(mjs|cjs|mts|ts)$/.test(name) && !/node_modules|dist/.test(name))
  .map((name) => readFileSync(join(root, "examples", name), "utf8"))

/** Whether one of those apps contains `code` verbatim. */
const isExcerpt = (code) => APPS.some((text) => `\n${text}\n`.includes(`\n${code}\n`))
const isProgram = (code) => /^import .* from "express"|= require\("express"\)/m.test(code) && /\.listen\(/.test(code)

/** How a block of each language is tested. An excerpt of an app is tested with that app. */
const LANGUAGES = {
  async js({ code, heading }) {
    if (isExcerpt(code) && !isProgram(code)) return
    const outcome = await runs(code, RELEASES[heading])
    assert.ok(outcome.stores + (outcome.again ?? 0) + outcome.said > 0, "the block has no effect that can be checked")
    if (/\bapp\.use\(session\(/.test(code)) assert.deepEqual([outcome.visits, outcome.again], [1, 2])
  },

  async ts({ code }) {
    if (isExcerpt(code) && !isProgram(code)) return
    const { outputText } = ts.transpileModule(code, { compilerOptions: { module: "esnext", target: "es2022" } })
    const folder = layOut(code, {})
    try {
      writeFileSync(join(folder, "block.mts"), code)
      const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
      const tsc = [join(root, "node_modules", "typescript", "bin", "tsc"), ...options, "--types", "node", "block.mts"]
      const { exitCode, printed } = await run(tsc, folder)
      assert.equal(exitCode, 0, printed)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    await runs(outputText, {})
  },

  /** Both sides do the same, and a session of the old side is read by the new one. */
  async diff({ code, heading }) {
    const names = RELEASES[heading] ?? RELEASES["From 9 and 10"]
    const { before, after } = sides(code)
    const old = await runs(before, names)
    assert.deepEqual([old.visits, old.again], [1, 2])
    const own = await runs(after, names, { COOKIE: old.cookie })
    assert.deepEqual([own.visits, own.again], [3, 4])
  },

  /** Commands of this project exist; the install tests run those that install packages. */
  sh({ code }, folder) {
    for (const line of code.split("\n").filter(Boolean)) {
      const words = line.replace(/#.*/, "").trim().split(/\s+/)
      while (/^[A-Z_]+=/.test(words[0])) words.shift()
      const [program, verb, ...names] = words
      assert.ok(["npm", "node"].includes(program), `an unknown command: ${line}`)
      if (program === "node") assert.ok(existsSync(join(root, verb)), `no script ${verb}`)
      else if (verb === "test") assert.ok(manifest.scripts.test)
      else if (verb === "run") assert.ok(manifest.scripts[names[0]], `no script ${names[0]}`)
      else if (verb === "start") assert.ok(JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).scripts.start)
      else if (verb === "install" || verb === "uninstall") names.forEach(isKnownPackage)
      else assert.fail(`an unknown command: ${line}`)
    }
  },

  /** Redis accepts its commands. */
  async redis({ code }) {
    for (const line of code.split("\n").filter(Boolean)) {
      assert.equal(String(await server.client.sendCommand(line.split(" "))), "OK", line)
    }
  },

  /** Dockerfiles: their npm commands are checked. */
  dockerfile({ code }) {
    const steps = code.replaceAll("\\\n", " ").split("\n").filter(Boolean)
    assert.match(steps[0], /^FROM node:(2\d)(-\w+)?( AS \w+)?$/)
    for (const step of steps) {
      assert.match(step, /^(FROM|WORKDIR|COPY|RUN|ENV|USER|EXPOSE|CMD) \S/)
      if (step.startsWith("CMD")) assert.ok(Array.isArray(JSON.parse(step.slice("CMD ".length))))
      if (step.startsWith("RUN")) assert.match(step, /^RUN npm ci( --omit=dev)?$/)
    }
  },
}

/** Languages that are not run here, and the reason. */
const NOT_RUN = { dockerfile: "no Docker here to build it" }

function isKnownPackage(name) {
  if (name.startsWith("-")) return
  const [, alias, target] = /^(?:(.+?)@npm:)?(@?[^@]+)/.exec(name)
  const known = [manifest.name, "@types/connect-redis", ...Object.keys(manifest.devDependencies)]
  assert.ok(
    [alias, target].every((one) => one === undefined || known.includes(one)),
    `an unknown package: ${name}`,
  )
}

for (const { name, found } of DOCUMENTS) {
  describe(name, () => {
    for (const block of found) {
      const { language, line } = block
      const title = `line ${line}: ${language || "no language"}`
      test(title, async (t) => {
        assert.ok(LANGUAGES[language], `blocks of language "${language}" have no test`)
        if (/(redis|cluster)\.example\.com/.test(block.code) && noTls) return t.skip(noTls)
        await server.client.flushAll()
        await LANGUAGES[language](block, dirname(join(root, name)))
      })
      if (NOT_RUN[language]) test(`${title}, built`, { skip: NOT_RUN[language] }, () => {})
    }
  })
}

/** Runs `code` in an empty folder; `names` maps its imports to packages. */
async function runs(code, names = {}, env = {}) {
  const text = await placed(code)
  const folder = layOut(text, names)
  try {
    const commonjs = /\brequire\(/.test(text)
    const file = join(folder, commonjs ? "block.cjs" : "block.mjs")
    const named = ["app", "store"].filter((name) => new RegExp(`\\b${name}\\b`).test(text))
    writeFileSync(file, `${text}\nfinish({ ${named.join(", ")} })\n`)
    const { exitCode, printed, errors } = await run(["--import", given, file], folder, env)
    assert.equal(exitCode, 0, `${text}\n${printed}${errors}`)
    const lines = printed
      .replace(/^Open http:.*$/m, "")
      .trim()
      .split("\n")
    const outcome = JSON.parse(lines.pop())
    const said = [...text.matchAll(/^ *console\.log\(.*\);? \/\/ (.*)$/gm)].map(([, expected]) => expected)
    assert.deepEqual(
      lines.filter((line) => line !== ""),
      said,
    )
    return { ...outcome, said: said.length }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** `code` with the addresses of the test servers, and with a name for unnamed stores. */
async function placed(code) {
  let text = code
  for (const { names, start } of PLACES) {
    if (!names.test(text)) continue
    if (!started.has(start)) started.set(start, start())
    for (const [there, here] of Object.entries(await started.get(start))) text = text.replaceAll(there, here)
  }
  for (const [file, here] of Object.entries(EXAMPLES)) text = text.replaceAll(file, here)
  for (const [usual, here] of USUAL) text = text.replace(usual, here)
  return text.replaceAll(/^new RedisStore\(/gm, "made[made.length] = new RedisStore(")
}

/** A folder with the packages that `code` imports, and the certificates that it may read. */
function layOut(code, names) {
  const folder = mkdtempSync(join(tmpdir(), "connect-redis-native-"))
  const imported = [...code.matchAll(/(?:from |import |require\()"([^".][^"]*)"/g)].map(([, name]) => name)
  for (const name of new Set([...imported, "@types/node", "@types/express", "@types/express-session"])) {
    if (/^(node|file):/.test(name)) continue
    const link = join(folder, "node_modules", name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(name === manifest.name ? root : join(root, "node_modules", names[name] ?? name), link, "junction")
  }
  if (certificates === undefined) return folder
  const { ca, cert, key } = certificates
  const files = { "ca.pem": ca, "client.pem": cert, "client-key.pem": key }
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text)
  return folder
}

function run(args, cwd, env = {}) {
  const child = spawn(process.execPath, args, {
    cwd,
    env: {
      ...process.env,
      NODE_ENV: "test",
      PORT: "0",
      REDIS_URL: server.url,
      // Stands for the authority of a hosted service's certificate, which the system would have.
      ...(existsSync(join(cwd, "ca.pem")) && { NODE_EXTRA_CA_CERTS: join(cwd, "ca.pem") }),
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
  })
  let printed = ""
  let errors = ""
  child.stdout.on("data", (data) => (printed += data))
  child.stderr.on("data", (data) => (errors += data))
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (exitCode) => resolve({ exitCode, printed, errors }))
  })
}

test("an app that stops as deployment.md describes ends by itself", async () => {
  const { code } = DOCUMENTS.flatMap(({ found }) => found).find(
    ({ code, language }) => language === "js" && code.includes("SIGTERM"),
  )
  const folder = layOut(code, {})
  try {
    const file = join(folder, "block.mjs")
    const ready = 'await store.length()\nprocess.kill(process.pid, "SIGTERM")\n'
    writeFileSync(file, `${await placed(code)}\n${ready}process.on("exit", () => console.log(store.status))\n`)
    const { exitCode, printed, errors } = await run(["--import", given, file], folder)
    assert.deepEqual([exitCode, printed], [0, "closed\n"], errors)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

describe("docs are complete", () => {
  const headings = (name) =>
    [...readFileSync(join(root, "docs", name), "utf8").matchAll(/^## `(\w+)`$/gm)].map(([, heading]) => heading)
  const section = (name, heading) => {
    const text = readFileSync(join(root, "docs", name), "utf8")
    return text.split(`\n## \`${heading}\`\n`)[1].split("\n## ")[0].replaceAll(/\s+/g, " ")
  }

  test("options.md has exactly the options, with their defaults and ranges", () => {
    assert.deepEqual(headings("options.md"), Object.keys(OPTIONS))
    for (const [name, { initial, must }] of Object.entries(OPTIONS)) {
      const text = section("options.md", name)
      const shown = initial === JSON ? "`JSON`" : initial === undefined ? "none" : `\`${JSON.stringify(initial)}\``
      assert.ok(text.includes(`Default: ${shown}.`), `${name}: Default: ${shown}.`)
      const [range] = /\d+ to \d+/.exec(must) ?? []
      if (range) assert.ok(text.includes(range), `${name}: ${range}`)
    }
  })

  test("errors.md has exactly the codes, and every code of a warning", () => {
    assert.deepEqual(headings("errors.md").slice(0, errorCodes.length), errorCodes)
    const names = readdirSync(join(root, "lib"), { recursive: true }).filter((name) => name.endsWith(".js"))
    const sources = names.map((name) => readFileSync(join(root, "lib", name), "utf8"))
    const warnings = new Set(sources.join("").match(/CONNECT_REDIS_NATIVE_\w+/g))
    assert.deepEqual(headings("errors.md").slice(errorCodes.length).toSorted(), [...warnings].toSorted())
  })

  test("every link leads to a file and a heading that exist", () => {
    const anchor = (title) =>
      title
        .toLowerCase()
        .replaceAll(/[^\w -]/g, "")
        .replaceAll(" ", "-")
    for (const name of FILES) {
      const text = readFileSync(join(root, name), "utf8")
      for (const [, path, fragment] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)) {
        const target = path === "" ? join(root, name) : join(root, dirname(name), path)
        const found = readFileSync(target, "utf8")
        if (fragment === undefined) continue
        const anchors = [...found.matchAll(/^#+ (.*)$/gm)].map(([, title]) => anchor(title))
        assert.ok(anchors.includes(fragment), `${name}: ${path}#${fragment}`)
      }
    }
  })
})
