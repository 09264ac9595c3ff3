"use strict"

const { RedisStoreError, closedError } = require("../errors.js")
const { addStats } = require("../observe/stats.js")
const { ask } = require("../request.js")
const { keepAlive, letGo } = require("../native/keep-alive.js")
const { clearInterval, nextTick, now, setInterval, withDeadline } = require("../timers.js")

/** A refusal of the network may end by itself, as when a server starts again: it must last so long. */
const NETWORK_PATIENCE_MS = 1000
const POLL_MS = 20

let warned = false

/**
 * A native backend that the application's own client stands in for, while no native connection can be opened
 * and the client answers: there may be a way to connect that this package does not know. It goes on trying, and
 * requests go over when that succeeds.
 *
 * Where requests go is `#route`: "native", "client", or "held" while it is not known, or while the side before
 * has requests that must be answered first, so that those of a session keep their order.
 */
class SafetyNet {
  #native
  #delegate
  #client
  #limits
  #listener
  #route = "held"
  /** Where held requests will go, if that is known. */
  #next
  #held = []
  #heldBytes = 0
  #isConnected = false
  #failingSince = now()
  /** The client answered a PING since the last attempt to connect began. */
  #clientAnswers = false
  #asking = false
  #usedClient = false
  #lastError
  #ticker
  #since = now()
  #closing

  /** `openNative` and `openDelegate` are given a listener. */
  constructor(client, openNative, openDelegate, limits, listener) {
    this.#client = client
    this.#limits = limits
    this.#listener = listener
    this.#delegate = openDelegate(() => {})
    this.#native = openNative((event, error) => this.#noticed(event, error))
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
    if (this.#route === "native") this.#native.send(operation, key, value, number, request)
    else this.#redirect(request, key.length + value.length, (to) => to.send(operation, key, value, number, request))
  }

  destroy(key, prefix, request) {
    if (this.#route === "native") this.#native.destroy(key, prefix, request)
    else this.#redirect(request, key.length + prefix.length, (to) => to.destroy(key, prefix, request))
  }

  restore(operation, key, prefix, value, ...rest) {
    const request = rest.at(-1)
    if (this.#route === "native") this.#native.restore(operation, key, prefix, value, ...rest)
    else {
      const units = key.length + prefix.length + value.length
      this.#redirect(request, units, (to) => to.restore(operation, key, prefix, value, ...rest))
    }
  }

  rewrite(key, base, value, request) {
    if (this.#route === "native") this.#native.rewrite(key, base, value, request)
    else this.#redirect(request, base.length + value.length, (to) => to.rewrite(key, base, value, request))
  }

  remove(key, base, request) {
    if (this.#route === "native") this.#native.remove(key, base, request)
    else this.#redirect(request, key.length + base.length, (to) => to.remove(key, base, request))
  }

  mget(keys, request) {
    if (this.#route === "native") this.#native.mget(keys, request)
    else this.#redirect(request, 0, (to) => to.mget(keys, request))
  }

  stats() {
    const stats = this.#native.stats()
    if (this.#usedClient) addStats(stats, this.#delegate.stats())
    stats.pending += this.#held.length
    return stats
  }

  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    if (this.#route === "held") this.#go(this.#next ?? "native")
    await new Promise((resolve) => this.#delegate.whenIdle(resolve))
    this.#stopTicking()
    await this.#delegate.close()
    await this.#native.close()
  }

  #redirect(request, units, send) {
    if (this.#closing !== undefined && !request.follows) return this.#refuse(request, closedError())
    if (this.#route === "client") return send(this.#delegate)
    // One more than fits: the native half refuses it, in its own words.
    const { maxPending, maxPendingBytes, commandTimeoutMs } = this.#limits
    if (this.#held.length >= maxPending || this.#heldBytes + units > maxPendingBytes) return send(this.#native)
    const settle = request.settle.bind(request)
    const late = () => this.#lateError()
    request.settle = withDeadline(commandTimeoutMs, late, settle)
    if (this.#held.length === 0) keepAlive(this)
    this.#heldBytes += units
    this.#held.push(send)
    this.#tick()
    try {
      // The first request connects.
      this.#native.connect()
    } catch (error) {
      this.#failed(error)
    }
  }

  #refuse(request, error) {
    nextTick(() => request.settle(error, null))
  }

  #lateError() {
    const { commandTimeoutMs } = this.#limits
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
      this.#hold(undefined)
    } else if (event === "error" && !this.#isConnected) this.#failed(error)
    // Served all the same, and it was told of.
    if (this.#route === "client" && (event === "error" || event === "status")) return
    this.#listener(event, error)
  }

  /** An attempt to connect has failed. */
  #failed(error) {
    this.#lastError = error
    if (this.#closing !== undefined || this.#isConnected || this.#route === "client") return this.#tick()
    const lasts = now() - this.#failingSince >= NETWORK_PATIENCE_MS
    if (this.#clientAnswers && (lasts || !isOfTheNetwork(error))) return this.#change("client")
    this.#askClient()
  }

  /** Asks the client whether it answers. The attempt to connect that begins after its answer is compared with it. */
  async #askClient() {
    if (this.#asking) return
    if (!isConnected(this.#client)) return this.#clientIsAway()
    this.#asking = true
    try {
      await ask((request) => this.#delegate.send("ping", "", "", 0, request))
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
    if (this.#route === "client" && next === undefined) return
    this.#next = next
    if (this.#route !== "held") this.#since = now()
    this.#route = "held"
    this.#tick()
  }

  /** Requests go to `next` from now on, once those before them are answered. */
  #change(next) {
    if (this.#route === next) return
    if (next === "client") this.#warn()
    const before = next === "native" ? this.#delegate : this.#native
    if (before.pending === 0) this.#go(next)
    else this.#hold(next)
  }

  #go(route) {
    this.#route = route
    this.#next = undefined
    if (route === "client") this.#usedClient = true
    const to = route === "client" ? this.#delegate : this.#native
    this.#heldBytes = 0
    const held = this.#held.splice(0)
    for (const send of held) send(to)
    if (held.length > 0) letGo(this)
  }

  /** What no event tells. */
  #tick() {
    if (this.#ticker !== undefined) return
    const self = new WeakRef(this)
    this.#ticker = setInterval(() => self.deref()?.#look(), POLL_MS)
    this.#ticker.unref()
  }

  #stopTicking() {
    clearInterval(this.#ticker)
    this.#ticker = undefined
  }

  #look() {
    if (this.#route === "native" || this.#closing !== undefined) return this.#stopTicking()
    if (this.#route === "client") {
      // Where there is no connection that tries again by itself.
      if (now() - this.#since < NETWORK_PATIENCE_MS) return
      this.#since = now()
      try {
        this.#native.connect()
      } catch (error) {
        this.#lastError = error
      }
      return
    }
    if (this.#next !== undefined) {
      const before = this.#next === "native" ? this.#delegate : this.#native
      if (before.pending === 0) this.#go(this.#next)
      return
    }
    // The attempt to connect gets no answer: nothing will fail for a while.
    const waited = now() - Math.max(this.#since, this.#failingSince)
    if (waited < Math.min(NETWORK_PATIENCE_MS, this.#limits.commandTimeoutMs / 2)) return
    if (this.#clientAnswers) this.#change("client")
    else if (!this.#asking) this.#askClient()
  }

  #warn() {
    if (warned) return
    warned = true
    const why = this.#lastError?.message ?? "The server does not answer."
    process.emitWarning(
      `The native connection cannot be opened. ${why} Until it can be, stores use the commands of the client they are given.`,
      { code: "CONNECT_REDIS_NATIVE_FALLBACK" },
    )
  }
}

/** Whether the client has a connection now. A PING may connect one that was never asked to. */
function isConnected(client) {
  try {
    if (typeof client.isReady === "boolean") return client.isReady
    if (typeof client.status === "string") return client.status === "ready"
    return client.ready ?? client.isOpen ?? true
  } catch {
    return false
  }
}

/** Whether the server was not reached, or does not serve yet. */
function isOfTheNetwork({ code, cause }) {
  return code === "ERR_REDIS_STORE_CONNECT" && /^E[A-Z]+$|^LOADING$|^MASTERDOWN$/.test(cause?.code ?? "")
}

module.exports = { SafetyNet }
