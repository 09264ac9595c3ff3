// What sealing and opening one session costs, called from JavaScript: here, and by connect-mongo's adapters, which
// need `npm install --no-save connect-mongo`.
import { createRequire } from "node:module"

const require = createRequire(import.meta.url)
const { binding } = require("../lib/native/protocol.js").loadProtocol()
const MEASURE_MS = 500
const KEY = "sess:0123456789abcdefghijklmnopqrstuv"

function ours() {
  const keys = [{ id: "a", key: Buffer.alloc(32, 1) }]
  const sealing = new binding.Sealing({ keys, plaintext: "reject", keyPrefix: "", maxBytes: 2 ** 22 })
  return { encrypt: (text) => sealing.seal(KEY, text), decrypt: (stored) => sealing.open(KEY, stored) }
}

function adapters() {
  const found = { "connect-redis-native": ours() }
  try {
    const { createKrupteinAdapter, createWebCryptoAdapter } = require("connect-mongo")
    const secret = "a secret of 32 characters or more"
    found["connect-mongo, Web Crypto"] = createWebCryptoAdapter({ secret })
    found["connect-mongo, kruptein"] = createKrupteinAdapter({ secret })
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error
    console.log("connect-mongo is not installed: npm install --no-save connect-mongo")
  }
  return found
}

/** Microseconds of one call. */
async function cost(call) {
  for (let n = 0; n < 10; n++) await call()
  const startedAt = performance.now()
  let calls = 0
  while (performance.now() - startedAt < MEASURE_MS) {
    for (let n = 0; n < 10; n++) await call()
    calls += 10
  }
  return ((performance.now() - startedAt) * 1000) / calls
}

export async function costOfCryptography(sizes) {
  console.log(
    "microseconds of one call".padEnd(30) + sizes.map((bytes) => `encrypt, decrypt ${bytes} B`.padStart(26)).join(""),
  )
  for (const [name, { encrypt, decrypt }] of Object.entries(adapters())) {
    const figures = []
    for (const bytes of sizes) {
      const text = JSON.stringify({ text: "x".repeat(bytes - 11) })
      const stored = await encrypt(text)
      // kruptein gives JSON back.
      if (![text, JSON.stringify(text)].includes(await decrypt(stored)))
        throw new Error(`${name} gives another text back`)
      const both = [await cost(() => encrypt(text)), await cost(() => decrypt(stored))]
      figures.push(both.map((each) => each.toFixed(each < 10 ? 2 : 0)).join(", "))
    }
    console.log(name.padEnd(30) + figures.map((figure) => figure.padStart(26)).join(""))
  }
}
