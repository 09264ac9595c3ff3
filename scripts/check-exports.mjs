// Compares the names in index.d.ts and index.d.mts with the names that the package exports, by tsc.
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"

import * as esm from "../index.mjs"
import { root } from "../testing/project.mjs"
import { run } from "../testing/run.mjs"

const require = createRequire(import.meta.url)
const commonjs = require("../index.js")
const { OPTIONS } = require("../lib/options/options.js")

const own = (value) => Object.getOwnPropertyNames(value)
const disposable = Object.hasOwn(commonjs.RedisStore.prototype, Symbol.asyncDispose)
const functionOwn = new Set(["length", "name", "prototype", "arguments", "caller"])
const storeFields = Object.keys(new commonjs.RedisStore({ url: "redis://localhost" })).filter(
  (name) => !name.startsWith("_"),
)
const storeMethods = own(commonjs.RedisStore.prototype).filter((name) => name !== "constructor")

const NAMES = {
  'keyof typeof import("connect-redis-native", { with: { "resolution-mode": "import" } })': Object.keys(esm),
  "keyof typeof connectRedis": own(commonjs).filter((name) => !functionOwn.has(name)),
  'Exclude<keyof connectRedis.RedisStore, keyof import("express-session").Store> | OverridableByStore': [
    ...storeFields,
    ...storeMethods,
    ...(disposable ? [Symbol.asyncDispose] : []),
  ],
  "keyof connectRedis.RedisStoreOptions": Object.keys(OPTIONS),
}
const overridden = storeMethods.filter((name) =>
  ["get", "set", "touch", "destroy", "all", "length", "clear", "createSession"].includes(name),
)

const literal = (name) => (typeof name === "symbol" ? "typeof Symbol.asyncDispose" : JSON.stringify(name))
const union = (names) => names.map(literal).join(" | ")
const checks = Object.entries(NAMES).map(
  ([type, names], at) => `type Check${at} = Same<${type}, ${union(names)}>\nconst check${at}: Check${at} = true\n`,
)
const text = `import connectRedis = require("connect-redis-native")
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : { missing: Exclude<B, A> }) : { surplus: Exclude<A, B> }
type OverridableByStore = ${union(overridden)}
${checks.join("")}export { ${checks.map((_, at) => `check${at}`).join(", ")} }
`
const folder = join(root, "__test__", "types", "generated-exports")
mkdirSync(folder, { recursive: true })
writeFileSync(join(folder, "exports.cts"), text)
writeFileSync(
  join(folder, "tsconfig.json"),
  '{ "extends": "../tsconfig.json", "compilerOptions": { "paths": {} }, "include": ["*.cts"] }\n',
)
try {
  await run("npx", ["tsc", "-p", folder], { cwd: root })
} finally {
  rmSync(folder, { recursive: true })
}
