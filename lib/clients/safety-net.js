"use strict"

const { RedisStoreError, closedError, fullError, timeoutError } = require("../errors.js")
const { addStats } = require("../observe/stats.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { keepAlive, letGo } = require("../native/keep-alive.js")
const { clearInterval, nextTick, now, setInterval } = require("../timers.js")
const { Held } = require("./held.js")

/** A network error may end by itself, for example when a server restarts. The client takes over after this time. */
const NETWORK_PATIENCE_MS = 1000
/** The polling interval while requests are held, and while the client serves. */
const POLL_MS = 20
const RECONNECT_MS = 1000
/** Polls that the client has to answer a PING while the native circuit is open. After them, requests fail at once. */
const PING_LOOKS = 5
/**
 * How long the native backend waits for writes that the client has not settled: a write in the client's queue
 * would overwrite later ones.
 */
const CLIENT_WRITES_MS = 10_000

let warned = false

/**
 * A native backend with the application's own client as a fallback: the client serves while no native
 * connection can be opened and the client answers. (It may connect in a way that this package does not know.)
 * The native backend keeps trying, and requests move to it once it is connected.
 *
 * `#route` is the destination of requests: "native", "client", or "held". Requests are held while the
 * destination is not known, and while the previous backend still has unanswered requests, so that requests of a
 * session keep their order.
 */
class SafetyNet {
  #native
  #delegate
  #client
  #limits
  #listener
  #route = "held"
  /** The destination of held requests, if it is known. */
  #next
  #held = new Held(() => this.#heldEnded())
  /** Work other than requests that close() waits for. */
  #kept = 0
  #released
  #isConnected = false
  /** "ready" was emitted, and the connection has not changed since. */
  #isReady = false
  #failingSince = now()
  #nativeSince = now()
  /** The client answered a PING since the last attempt to connect began. */
  #clientAnswers = false
  #asking = false
  #looksSinceAsked = 0
  #usedClient = false
  #lastError
  /** The requests that the client serves since their credentials were refused. */
  #takenBack = new WeakSet()
  #ticker
  #tickMs
  #since = now()
  #closing

  /** `openNative` and `openDelegate` receive a listener. */
  constructor(client, openNative, openDelegate, limits, listener) {
    this.#client = client
    this.#limits = limits
    this.#listener = listener
    this.#delegate = openDelegate(() => {})
    this.#native = openNative((event, error) => this.#noticed(event, error))
    this.#native.takeBack = (request, error) => this.#takeBack(request, error)
  }

  get native() {
    return this.#route !== "client"
  }

  get status() {
    return this.#route === "client" && this.#closing === undefined ? this.#delegate.status : this.#native.status
  }

  connect() {
    try {
      this.#native.connect()
    } catch (error) {
      this.#failed(error)
      throw error
    }
  }

  send(operation, key, value, number, request) {
    // Fields instead of a closure, as in byUser(): nearly every request passes here, with its own key.
    request.operation = key === request.key ? operation : sending(operation, key, value, number, request)
    request.value = value
    request.number = number
    if (this.#isDirect) this.#native.send(operation, key, value, number, request)
    else this.#redirect(operation, request, key.length + value.length)
  }

  destroy(key, prefix, request) {
    request.operation = (to) => to.destroy(key, prefix, request)
    if (this.#isDirect) this.#native.destroy(key, prefix, request)
    else this.#redirect(OPERATIONS.destroy, request, key.length + prefix.length)
  }

  restore(operation, key, prefix, value, ...rest) {
    const request = rest.at(-1)
    request.operation = (to) => to.restore(operation, key, prefix, value, ...rest)
    if (this.#isDirect) this.#native.restore(operation, key, prefix, value, ...rest)
    else this.#redirect(operation, request, key.length + prefix.length + value.length)
  }

  swap(key, base, value, ttl, request) {
    request.operation = (to) => to.swap(key, base, value, ttl, request)
    if (this.#isDirect) this.#native.swap(key, base, value, ttl, request)
    else this.#redirect(OPERATIONS.swap, request, base.length + value.length)
  }

  rewrite(key, base, value, request) {
    request.operation = (to) => to.rewrite(key, base, value, request)
    if (this.#isDirect) this.#native.rewrite(key, base, value, request)
    else this.#redirect(OPERATIONS.swap, request, base.length + value.length)
  }

  remove(key, base, request) {
    request.operation = (to) => to.remove(key, base, request)
    if (this.#isDirect) this.#native.remove(key, base, request)
    else this.#redirect(OPERATIONS.swap, request, key.length + base.length)
  }

  mget(keys, request) {
    request.operation = (to) => to.mget(keys, request)
    if (this.#isDirect) this.#native.mget(keys, request)
    else this.#redirect(OPERATIONS.mget, request, 0)
  }

  byUser(operation, about, request) {
    request.operation = operation
    request.value = about
    if (this.#isDirect) this.#native.byUser(operation, about, request)
    else this.#redirect(operation, request, about.index.length + (about.value?.length ?? 0))
  }

  get #isDirect() {
    return this.#route === "native" && this.#closing === undefined
  }

  keep() {
    if (this.#kept++ === 0) keepAlive(this)
  }

  release() {
    if (--this.#kept > 0) return
    this.#heldEnded()
    this.#released?.()
  }

  #heldEnded() {
    if (this.#held.count === 0 && this.#kept === 0) letGo(this)
  }

  stats() {
    const stats = this.#native.stats()
    if (this.#usedClient) addStats(stats, this.#delegate.stats())
    stats.pending += this.#held.count
    return stats
  }

  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    if (this.#route === "held") this.#go(this.#next ?? "native")
    this.#stopTicking()
    if (this.#kept > 0) await new Promise((resolve) => (this.#released = resolve))
    await this.#delegate.close()
    await this.#native.close()
  }

  #redirect(operation, request, units) {
    if (this.#closing !== undefined && !request.follows) return this.#native.deny(operation, request, closedError())
    if (this.#route !== "held") return askAgain(request, this.#route === "client" ? this.#delegate : this.#native)
    const { maxPending, maxPendingBytes, commandTimeoutMs } = this.#limits
    const pending = this.#held.count + this.#native.pending + this.#delegate.pending
    if (pending >= maxPending) {
      return this.#native.deny(operation, request, fullError(`${maxPending} requests`, "maxPending"))
    }
    if (this.#held.units + units > maxPendingBytes) {
      return this.#native.deny(operation, request, fullError(`${maxPendingBytes} bytes of requests`, "maxPendingBytes"))
    }
    keepAlive(this)
    this.#held.add(request, units, commandTimeoutMs, (isSent) => this.#lateError(isSent))
    this.#tick()
    try {
      // The first request connects.
      this.#native.connect()
    } catch (error) {
      this.#failed(error)
    }
  }

  /**
   * A request that failed natively for its credentials was not executed. It is sent once more through the
   * client, which may have valid ones.
   */
  #takeBack(request, error) {
    if (this.#takenBack.has(request) || this.#closing !== undefined || !isOfCredentials(error)) return false
    if (this.#native.isServing || !isConnected(this.#client)) return false
    const left = request.sentAt + this.#limits.commandTimeoutMs - now()
    if (left <= 0) return false
    this.#takenBack.add(request)
    request.error = null
    if (this.#route === "client") {
      askAgain(request, this.#delegate)
      return true
    }
    if (this.#route === "native") this.#hold(undefined)
    keepAlive(this)
    this.#held.putBack(request, left, () => error)
    if (!this.#clientAnswers) this.#askClient()
    return true
  }

  #lateError(isSent) {
    const { commandTimeoutMs } = this.#limits
    if (isSent && this.#lastError === undefined) return timeoutError("Redis did not answer", commandTimeoutMs)
    const why = this.#lastError === undefined ? "" : ` ${this.#lastError.message}`
    return new RedisStoreError(
      this.#lastError?.code ?? "ERR_REDIS_STORE_CONNECT",
      `No connection to Redis within ${commandTimeoutMs} ms.${why}`,
      this.#lastError?.cause,
    )
  }

  #noticed(event, error) {
    if (event === "ready") {
      this.#isConnected = true
      this.#lastError = undefined
      this.#clientAnswers = false
      this.#change("native")
    } else if (event === "reconnecting") {
      this.#isConnected = false
      this.#failingSince = now()
      // In a cluster, sessions on the other masters are still served.
      if (!this.#native.isServing) this.#hold(undefined)
    } else if (event === "error" && !this.#isConnected) this.#failed(error)
    // The client serves, and the problem was reported.
    if (this.#route === "client" && (event === "error" || event === "status")) return
    this.#tell(event, error)
  }

  /** "ready" is emitted once, whichever backend is ready. */
  #tell(event, error) {
    if (event === "ready" && this.#isReady) return
    if (event === "ready") this.#isReady = true
    else if (event === "reconnecting" || (event === "status" && this.status !== "ready")) this.#isReady = false
    this.#listener(event, error)
  }

  /** An attempt to connect has failed. */
  #failed(error) {
    this.#lastError = error
    if (this.#closing === undefined && this.#native.isServing) return this.#change("native")
    if (this.#closing !== undefined || this.#isConnected || this.#route === "client") return this.#tick()
    const lasts = now() - this.#failingSince >= NETWORK_PATIENCE_MS
    if (this.#clientAnswers && (lasts || !isOfTheNetwork(error))) return this.#change("client")
    this.#askClient()
  }

  /** Sends PING through the client. The answer counts for the attempt to connect that begins after it. */
  async #askClient() {
    if (this.#asking) return
    if (!isConnected(this.#client)) return this.#clientIsAway()
    this.#asking = true
    this.#looksSinceAsked = 0
    try {
      await ask((request) => this.#delegate.send(OPERATIONS.ping, "", "", 0, request))
      this.#clientAnswers = true
    } catch {
      this.#clientIsAway()
    } finally {
      this.#asking = false
    }
  }

  #clientIsAway() {
    this.#clientAnswers = false
    if (this.#route === "held" && this.#next === undefined && !this.#isConnected) this.#go("native")
  }

  /** Holds requests until they may go to `next`. */
  #hold(next) {
    if (this.#closing !== undefined || (this.#route === "client" && next === undefined)) return
    this.#next = next
    if (this.#route !== "held") this.#since = now()
    this.#route = "held"
    this.#tick()
  }

  /** Sends requests to `next` from now on, after the earlier ones are answered. */
  #change(next) {
    if (this.#route === next || this.#closing !== undefined) return
    if (next === "client") this.#warn()
    else if (this.#next !== "native") this.#nativeSince = now()
    if (this.#isFree(next)) this.#go(next)
    else this.#hold(next)
  }

  /** Whether the previous backend has answered all its requests. */
  #isFree(next) {
    if (next === "client") return this.#native.pending === 0
    if (this.#delegate.pending > 0) return false
    return this.#delegate.unsettledWrites === 0 || now() - this.#nativeSince >= CLIENT_WRITES_MS
  }

  #go(route) {
    this.#route = route
    this.#next = undefined
    if (route === "client") this.#usedClient = true
    const to = route === "client" ? this.#delegate : this.#native
    this.#held.release((request) => askAgain(request, to))
    if (route !== "client") return
    this.#tick()
    nextTick(() => this.#closing === undefined && this.#tell("ready"))
  }

  /** Checks conditions that no event reports. */
  #tick() {
    const ms = this.#route === "client" ? RECONNECT_MS : POLL_MS
    if (this.#ticker !== undefined && this.#tickMs === ms) return
    this.#stopTicking()
    this.#tickMs = ms
    const self = new WeakRef(this)
    const ticker = setInterval(() => {
      const net = self.deref()
      if (net === undefined) clearInterval(ticker)
      else net.#look()
    }, ms)
    this.#ticker = ticker
    ticker.unref()
  }

  #stopTicking() {
    clearInterval(this.#ticker)
    this.#ticker = undefined
  }

  #look() {
    if (this.#route === "native" || this.#closing !== undefined) return this.#stopTicking()
    if (this.#native.isServing) return this.#change("native")
    if (this.#route === "client") {
      // Without a connection, the backend does not retry by itself.
      try {
        this.#native.connect()
      } catch (error) {
        this.#lastError = error
      }
      return
    }
    if (this.#next !== undefined) {
      if (this.#isFree(this.#next)) this.#go(this.#next)
      return
    }
    if (this.#asking) {
      // The server seems frozen: requests fail at once, as without a client.
      if (this.#native.status === "down" && ++this.#looksSinceAsked > PING_LOOKS) this.#clientIsAway()
      return
    }
    // The attempt to connect gets no answer, so no error comes for a while.
    const waited = now() - Math.max(this.#since, this.#failingSince)
    const isLong = waited >= Math.min(NETWORK_PATIENCE_MS, this.#limits.commandTimeoutMs / 2)
    if (this.#clientAnswers && isLong) this.#change("client")
    else if (!this.#clientAnswers && (isLong || this.#native.status === "down")) this.#askClient()
  }

  #warn() {
    if (warned) return
    warned = true
    const why = this.#lastError?.message ?? "The server does not answer."
    process.emitWarning(
      `The native connection cannot be opened. ${why} Until it can be opened, stores call the commands of their client.`,
      { code: "CONNECT_REDIS_NATIVE_FALLBACK" },
    )
  }
}

function sending(operation, key, value, number, request) {
  return (to) => to.send(operation, key, value, number, request)
}

/** Sends the request to the backend `to`. */
function askAgain(request, to) {
  const { operation, key, value, number } = request
  if (typeof operation === "function") operation(to)
  else if (operation.isByUser) to.byUser(operation, value, request)
  else to.send(operation, key, value, number, request)
}

/** Whether the client has a connection now. (A PING may connect a client that the application never connected.) */
function isConnected(client) {
  try {
    if (typeof client.isReady === "boolean") return client.isReady
    if (typeof client.status === "string") return client.status === "ready"
    return client.ready ?? client.isOpen ?? true
  } catch {
    return false
  }
}

function isOfCredentials({ code, cause }) {
  return code === "ERR_REDIS_STORE_AUTH" && /^(WRONGPASS|NOAUTH)$/.test(cause?.code ?? "")
}

/** Whether the server was not reached, or is not ready yet. */
function isOfTheNetwork({ code, cause }) {
  return code === "ERR_REDIS_STORE_CONNECT" && /^E[A-Z]+$|^LOADING$|^MASTERDOWN$/.test(cause?.code ?? "")
}

module.exports = { SafetyNet }
