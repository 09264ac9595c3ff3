// The error when no native binary loads, for several kinds of broken installations.
import assert from "node:assert/strict"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { before, describe, test } from "node:test"

import { targets } from "../scripts/pack.mjs"
import { output } from "../testing/run.mjs"
import { root } from "../testing/project.mjs"
import {
  NAME,
  addon,
  file,
  go,
  here,
  manifest,
  must,
  npm,
  pnpm,
  project,
  readJson,
  skip,
  yarn,
  yarnProject,
} from "./support/projects.mjs"

describe("when no binary loads, the error states", () => {
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
  /** The command of the message for users of `manager`. */
  const advice = (message, manager) => new RegExp(`^- ${manager}: (.*?)(?:, or set .*)?$`, "m").exec(message)[1]
  const loads = async (folder, ...run) => {
    const { stdout, stderr } = await go(
      folder,
      ...(run.length > 0 ? [run[0], run.slice(1)] : [process.execPath, ["tell.cjs"]]),
    )
    assert.equal(stdout, "loaded\n", stderr)
  }

  test("that the package is missing, and npm's command installs it", { skip }, async () => {
    const folder = project({ "tell.cjs": tell })
    await npm(folder, "install", `--os=${os}`, `--cpu=${cpu}`, NAME, "express-session@1")
    const message = await said(folder)
    assert.match(message, new RegExp(`^- ${addon}: Cannot find module '${addon}/package.json'$`, "m"))
    assert.match(message, /^It was left out, or installed for another system\. To fix it:$/m)
    const [command, ...args] = advice(message, "npm").split(" ")
    await must(folder, command, ...args)
    await loads(folder)
  })

  test("pnpm's command, which installs it", { skip }, async () => {
    const folder = project({ "tell.cjs": tell })
    await pnpm(folder, "add", `--os=${os}`, `--cpu=${cpu}`, NAME, "express-session@1")
    const [, ...args] = advice(await said(folder), "pnpm").split(" ")
    await pnpm(folder, ...args)
    await loads(folder)
  })

  test("yarn's command, which installs it", { skip }, async () => {
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

    /** Changes the installed package, and restores it. */
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
        assert.equal(dlopenError(message), `has version 0.0.9, but version ${manifest.version} is needed`)
      })
    })

    test(
      "the glibc that is needed and the one of the system",
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

    test("the error of a broken binary that was built in the package", async () => {
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

    test("the same in the warning of stores that delegate", async () => {
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
      assert.match(stderr, /Until then, stores call the commands of their client\./)
    })

    test(
      "how to build it from source, which works",
      { skip: output("cargo", ["--version"]) === undefined && "cargo is not installed" },
      async () => {
        await said(folder)
        // Reuses the output of npm test's compilation.
        const triple = manifest.napi.targets[targets(manifest).indexOf(here.target)]
        const env = { CARGO_TARGET_DIR: join(root, "target"), CARGO_BUILD_TARGET: triple }
        const { code, stderr } = await go(folder, "npx", [NAME, "build"], env)
        assert.equal(code, 0, stderr)
        await loads(folder)
      },
    )
  })
})
