// Members that connect-redis 10 does not have: events, status, errors, counters.
import { once } from "node:events"
import {
  RedisStore,
  RedisStoreError,
  type RedisStoreCommandMessage,
  type RedisStoreConflict,
  type RedisStoreConnectionMessage,
  type RedisStoreErrorCode,
  type RedisStoreEvent,
  type RedisStoreListener,
  type RedisStoreStatus,
  type RedisStoreUserSession,
} from "connect-redis-native"

export async function use(store: RedisStore): Promise<unknown> {
  await using own = new RedisStore({ url: "redis://localhost" })
  await own[Symbol.asyncDispose]()
  const status: "connecting" | "ready" | "down" | "closed" = store.status
  const native: boolean = store.native
  const pong: "PONG" = await store.ping()
  store.ping((error, pong?: string) => void [error, pong])
  const none: null = await store.close()
  store.close((error) => error)
  const { commands, latency, pending } = store.stats()
  // @ts-expect-error the status is read-only
  store.status = "ready"
  // @ts-expect-error a member that does not exist
  void store.state
  // @ts-expect-error a status that does not exist
  if (store.status === "open") return
  return [status, native, pong, none, commands.get?.ok, latency.sumMs + pending]
}

export async function users(store: RedisStore): Promise<unknown> {
  const sessions: RedisStoreUserSession[] = await store.sessionsOf("ada", { current: "id" })
  store.sessionsOf(7, (error, found) => void [error, found?.[0]?.lastSeen.getTime()])
  store.sessionsOf(7n, null, (error, found) => void [error, found?.length])
  const count: number = await store.destroyUser("ada", { except: "id" })
  store.destroyUser("ada", (error, ended?: number) => void [error, ended])
  store.destroyUser("ada", {}, (error, ended?: number) => void [error, ended])
  const ended: boolean = await store.destroyHandle("ada", sessions[0]?.handle ?? "")
  store.destroyHandle("ada", "handle", (error, was?: boolean) => void [error, was])
  // @ts-expect-error a user is needed
  void store.sessionsOf()
  // @ts-expect-error a user is not an object
  void store.destroyUser({})
  // @ts-expect-error a handle is needed
  void store.destroyHandle(7)
  return [
    count,
    ended,
    sessions.map(({ created, expires, info, current }) => [created, expires?.getTime(), info.ip, current]),
  ]
}

export async function events(store: RedisStore): Promise<void> {
  const listener: RedisStoreListener<"conflict"> = ({ kind, sidHash, paths }) => void [kind, sidHash, paths]
  store.on("conflict", listener).once("conflict", listener).off("conflict", listener)
  store.addListener("ready", () => {}).removeListener("reconnecting", () => {})
  store.prependListener("end", () => {}).prependOnceListener("connect", () => {})
  store.on("error", (error) => void (error.code satisfies RedisStoreErrorCode))
  store.once("error", (error: Error) => void error.message)
  await once(store, "ready")
  const names: RedisStoreEvent[] = ["ready", "reconnecting", "end", "error", "conflict", "connect", "disconnect"]
  for (const name of names) store.on(name, (...args) => void args)
  // @ts-expect-error an event that does not exist
  store.on("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.once("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.off("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.addListener("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.removeListener("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.prependListener("typo", () => {})
  // @ts-expect-error an event that does not exist
  store.prependOnceListener("typo", () => {})
  // @ts-expect-error ready has no argument
  store.on("ready", (value: string) => void value)
  // @ts-expect-error the argument is a conflict
  store.once("conflict", (value: string) => void value)
}

export function errors(error: unknown): RedisStoreErrorCode | undefined {
  if (!(error instanceof RedisStoreError)) return undefined
  // @ts-expect-error a code that does not exist
  if (error.code === "ERR_OTHER") return undefined
  if (error.code === "ERR_REDIS_STORE_ENCODE") return "ERR_REDIS_STORE_ENCODE"
  // @ts-expect-error a code that does not exist
  void new RedisStoreError("ERR_OTHER", "")
  return new RedisStoreError("ERR_REDIS_STORE_TIMEOUT", "too slow", error.cause).code
}

export async function sealing(store: RedisStore): Promise<number> {
  store.on("reseal", ({ done, total }) => void (done / total))
  const [handle = ""] = await store.ids()
  const ended: boolean = await store.destroyHandle(handle)
  const { resealed, failed } = await store.reseal()
  store.reseal((_error, progress) => void progress?.total)
  // @ts-expect-error a rule that does not exist
  const typo = new RedisStore({ url: "", encryption: { keys: [], plaintext: "other" } })
  // @ts-expect-error keys have ids
  const nameless = new RedisStore({ url: "", encryption: { keys: [{ key: "" }] } })
  await Promise.all([typo.close(), nameless.close()])
  return ended ? resealed : failed
}

export function messages(
  command: RedisStoreCommandMessage,
  connection: RedisStoreConnectionMessage,
  conflict: RedisStoreConflict,
): unknown {
  const status: RedisStoreStatus = connection.status
  const port: number | undefined = command.server?.port
  return [status, port, command.outcome === "ok", connection.error?.code, conflict.kind === "merged"]
}
