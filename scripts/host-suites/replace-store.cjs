// Loaded before a suite by --require: replaces the exports of some of its files with the tested store.
"use strict"

const Module = require("node:module")
const { join } = require("node:path")

const { url, subject, replaced, baseClass, factory, ignored } = JSON.parse(process.env.HOST_SUITE)
const root = join(__dirname, "..", "..")
const files = new Set(replaced)
const METHODS = ["get", "set", "touch", "destroy", "clear", "length", "ids", "all"]

const compile = Module._extensions[".js"]
Module._extensions[".js"] = (module, filename) => {
  compile(module, filename)
  if (files.has(filename)) module.exports = withStore(module.exports)
}

// The store extends the Store of the checkout. Its index.js is still loading when the memory store is loaded.
const load = Module._load
Module._load = function (request, ...rest) {
  if (request === "express-session" && baseClass) return { Store: require(baseClass) }
  return load.call(this, request, ...rest)
}

let Store

function withStore(exported) {
  Store ??= makeStore()
  if (factory) return () => Store
  if (typeof exported === "function") return Object.assign(Store, namesOf(exported))
  return { ...exported, ...namesOf(exported) }
}

/** The names under which a module exports classes of stores. */
function namesOf(exported) {
  const names = Object.keys(exported).filter((name) => typeof exported[name] === "function")
  return Object.fromEntries(names.map((name) => [name, Store]))
}

/** A class that accepts the arguments of any memory store. Its instances share one client, but no keys. */
function makeStore() {
  const fromRoot = Module.createRequire(join(root, "package.json"))
  const { RedisStore } = subject === "connect-redis" ? fromRoot(subject) : fromRoot("./index.js")
  const client = fromRoot("redis").createClient({ url })
  client.on("error", (error) => console.error(error))
  // Suites end by having nothing left to do, which an answer that is still awaited is not.
  let asked = 0
  const release = () => {
    if (--asked === 0) client.unref()
  }
  client.connect().then(() => {
    if (asked === 0) client.unref()
  }, console.error)
  let count = 0
  class MemoryStore extends RedisStore {
    constructor() {
      super({ client, prefix: `${subject}:${process.pid}:${count++}:` })
    }
  }
  // Our store does so itself.
  for (const name of subject === "connect-redis" ? METHODS : []) {
    MemoryStore.prototype[name] = function (...args) {
      if (asked++ === 0) client.ref()
      const result = RedisStore.prototype[name].apply(this, args)
      // A rejection that nothing handles is to stay one.
      if (typeof args.at(-1) === "function") result.finally(release)
      else result.then(release, release)
      return result
    }
  }
  for (const name of ignored) MemoryStore.prototype[name] = () => {}
  return MemoryStore
}
