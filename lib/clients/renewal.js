"use strict"

/** The credentials that auth() of a client was last given, and what its options said then. */
const renewed = new WeakMap()

/**
 * Observes auth() of `client`, whose options `read` reads: ioredis and redis 4 to 6 keep what it is given
 * nowhere, and applications renew tokens by it.
 */
function observeAuth(client, read) {
  observe(client, "auth", read, credentialsOf)
}

/** The same for the method by which valkey-glide is given another password. */
function observePassword(client, read) {
  observe(client, "updateConnectionPassword", read, ([password]) => ({
    username: client.config.credentials?.username,
    password: password ?? undefined,
  }))
}

function observe(client, name, read, credentialsOf) {
  const method = client[name]
  if (typeof method !== "function" || renewed.has(client)) return
  renewed.set(client, undefined)
  const value = function (...args) {
    const before = read()
    const result = method.apply(this, args)
    const given = credentialsOf(args)
    if (typeof result?.then === "function" && given !== undefined) {
      Promise.all([before, result]).then(
        ([said]) => renewed.set(client, { given, before: said }),
        () => {},
      )
    }
    return result
  }
  try {
    Object.defineProperty(client, name, { value, configurable: true, enumerable: false, writable: true })
  } catch {
    // Frozen: its options are what there is.
  }
}

/** `said` by the options of `client`, unless auth() was given others since they said so. */
function current(client, said) {
  const last = renewed.get(client)
  if (last === undefined) return said
  const isSame = last.before.username === said.username && last.before.password === said.password
  return isSame ? last.given : said
}

/** auth(password), auth(user, password) or auth({ username, password }), with a callback or without. */
function credentialsOf(args) {
  const [first, second] = args
  if (typeof first === "object" && first !== null) return { username: first.username, password: first.password }
  if (typeof first !== "string") return undefined
  return typeof second === "string" ? { username: first, password: second } : { password: first }
}

module.exports = { current, observeAuth, observePassword }
