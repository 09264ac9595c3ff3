"use strict"

/** The credentials of a client's last AUTH, and those in its options at that time. */
const renewed = new WeakMap()

/** The methods by which applications change the credentials of a client. Most clients do not keep the new ones. */
const METHODS = ["auth", "AUTH", "sendCommand", "call", "customCommand", "updateConnectionPassword"]

/**
 * Observes calls that give `client` new credentials. `read` reads those in its options; `isOwn` recognizes the
 * client's own logins.
 */
function observe(client, read, isOwn = () => false) {
  if (renewed.has(client)) return
  renewed.set(client, undefined)
  // The object that views such as withTypeMapping() inherit from; in legacyMode of redis 4, the promise API.
  const target = client._self ?? client
  const v4 = client.options?.legacyMode === true ? [client.v4] : []
  for (const each of [target, ...v4]) for (const name of METHODS) observeMethod(each, name, client, read, isOwn)
}

function observeMethod(target, name, client, read, isOwn) {
  const method = target[name]
  if (typeof method !== "function") return
  const value = function (...args) {
    const given = givenBy(name, args, client)
    if (given === undefined || isOwn(given)) return method.apply(this, args)
    const before = read()
    const keep = (result) =>
      Promise.all([before, result]).then(([said]) => renewed.set(client, { given, before: said }), ignore)
    const callback = args.at(-1)
    if (typeof callback === "function") {
      args[args.length - 1] = function (error, ...more) {
        if (!error) keep()
        return callback.call(this, error, ...more)
      }
    }
    const result = method.apply(this, args)
    if (typeof result?.then === "function") keep(result)
    return result
  }
  try {
    Object.defineProperty(target, name, { value, configurable: true, enumerable: false, writable: true })
  } catch {
    // The client is frozen: only its options can be read.
  }
}

function ignore() {}

/** `said`, the credentials in the options of `client`, unless the application gave it newer ones since. */
function current(client, said) {
  const last = renewed.get(client)
  return last !== undefined && isSame(last.before, said) ? last.given : said
}

function isSame(one, other) {
  return one.username === other.username && one.password === other.password
}

/** The credentials in a call of this method; undefined if there are none. */
function givenBy(name, args, client) {
  const [first] = args
  if (name === "updateConnectionPassword") {
    return { username: client.config.credentials?.username, password: first ?? undefined }
  }
  if (name === "auth" || name === "AUTH") return credentialsOf(args.flat())
  // An array of words, a Command of ioredis, or separate words.
  const isCommand = typeof first?.name === "string" && Array.isArray(first.args)
  const word = Array.isArray(first) ? first[0] : isCommand ? first.name : first
  if (typeof word !== "string" || !/^(auth|hello)$/i.test(word)) return undefined
  const words = Array.isArray(first) ? first : isCommand ? [word, ...first.args.flat()] : args.flat()
  if (/^auth$/i.test(word)) return credentialsOf(words.slice(1))
  const at = words.findIndex((each) => /^auth$/i.test(String(each)))
  return at === -1 ? undefined : credentialsOf(words.slice(at + 1, at + 3))
}

/** auth(password), auth(user, password) or auth({ username, password }). */
function credentialsOf(args) {
  const [first, second] = args.map((each) => (Buffer.isBuffer(each) ? String(each) : each))
  if (typeof first === "object" && first !== null) return { username: first.username, password: first.password }
  if (typeof first !== "string") return undefined
  return typeof second === "string" ? { username: first, password: second } : { password: first }
}

module.exports = { current, isSame, observe }
