import type { Session, SessionData, Store } from "express-session"

/**
 * The module is connect-redis 3 to 6's factory, and carries what the later majors export.
 *
 * @param session express-session, whose `Store` the returned class extends.
 * @returns a class whose callbacks get what connect-redis 3 to 6 gave them: `'OK'` from set and
 * touch (`'EXPIRED'` from a touch that finds no session), the number of keys from destroy and
 * clear, undefined from a get that misses.
 */
declare function connectRedis(session: {
  Store: abstract new (...args: any[]) => Store
}): typeof connectRedis.RedisStore

declare namespace connectRedis {
  /** For `import RedisStore from`, with and without `esModuleInterop`. */
  export { RedisStore as default }
  export const __esModule: true

  /** Called once: with an error and null, or with null and the result. */
  export type Callback<T> = (error: any, result?: T | null) => void

  /** Turns sessions into text and back. */
  export interface Serializer {
    /** May be async. A throw, a rejection, or a result that is no object fails the get. */
    parse(text: string): SessionData | Promise<SessionData>
    /** Must return a text that is not empty. A throw fails the set and leaves what is stored. */
    stringify(session: SessionData): string
  }

  /** Where a server listens; `"host:port"` is a node too. */
  export type Node = string | { host?: string; port?: number }

  /** Node's TLS options, as far as they concern a client; PEM as text or Buffer. */
  export interface TlsOptions {
    /** Certificates to trust. @default the system's */
    ca?: string | Buffer | Array<string | Buffer>
    /** The client's certificate chain, together with `key`. */
    cert?: string | Buffer
    /** The private key of `cert`, unencrypted. */
    key?: string | Buffer
    /** The name that the server's certificate must carry. @default the host */
    servername?: string
    /** False takes any certificate. @default true */
    rejectUnauthorized?: boolean
  }

  /** Who the store is to Redis. */
  export interface Credentials {
    /** ACL user. @default Redis's own, "default" */
    username?: string
    password: string
  }

  /** Sentinels, and the master group they are asked for. */
  export interface SentinelOptions {
    /** The name of the master group. */
    name: string
    /** At least one sentinel; all are asked at once. Port 26379 if it has none. */
    nodes: Node[]
    /** ACL user of the sentinels themselves. */
    username?: string
    /** Password of the sentinels themselves. */
    password?: string
    /** TLS to the sentinels themselves. @default false */
    tls?: boolean | TlsOptions
  }

  /**
   * One of `client`, `url`, `nodes` and `sentinel` says where Redis is. A value that cannot mean
   * anything throws a TypeError with code `ERR_REDIS_STORE_OPTIONS` that names the option; an unknown
   * option is ignored, with one process warning.
   */
  export interface RedisStoreOptions {
    /**
     * A Redis client. Its settings are adopted: addresses, user, password, database, TLS, client name
     * and key prefix are read when the store first connects, and the store opens connections of its
     * own with them. The client need not be connected and is not used otherwise. A client whose
     * settings cannot be read is delegated to: the store calls its commands (`native` is false).
     */
    client?: object
    /**
     * `redis://user:password@host:port/database`, `rediss://` for TLS, or
     * `redis+unix:///path?db=database`. What it says goes before `username`, `password` and `database`.
     */
    url?: string | URL
    /** Some nodes of a cluster, from which the others are found. Port 6379 if it has none. */
    nodes?: Node[]
    /** The master that sentinels name. */
    sentinel?: SentinelOptions
    /** TLS to Redis; not beside `client`, as the five options below. @default false, or true by rediss:// */
    tls?: boolean | TlsOptions
    /** ACL user. @default Redis's own, "default" */
    username?: string
    /** @default none, and no AUTH is sent */
    password?: string
    /**
     * Asked who we are at every connect, and again when Redis says that the password holds no more;
     * instead of `username` and `password`. Has `connectTimeoutMs` to answer. A throw or a rejection
     * is an `ERR_REDIS_STORE_AUTH`.
     */
    credentials?: () => Credentials | Promise<Credentials>
    /** Database number; 0 for a cluster. @default 0 */
    database?: number
    /** The name that CLIENT LIST shows; no spaces. @default none */
    clientName?: string
    /** What keys begin with, before the session id. @default "sess:" */
    prefix?: string
    /**
     * How long a session without `cookie.expires` lives, in seconds; or a function that says so for
     * every session. Zero or less from the function destroys the session.
     * @default 86400
     */
    ttl?: number | ((session: SessionData) => number)
    /** Sessions never expire, whatever `ttl` and `cookie.expires` say, and touch does nothing. @default false */
    disableTTL?: boolean
    /** touch does nothing. @default false */
    disableTouch?: boolean
    /** @default JSON */
    serializer?: Serializer
    /** How many keys a step of length, ids, all and clear looks at; at least 1000 are. 1 to 1000000. @default 100 */
    scanCount?: number
    /** Milliseconds for one attempt to connect, from name look-up to handshake. @default 5000 */
    connectTimeoutMs?: number
    /**
     * Milliseconds from call to callback, waiting for a connection included; then the request
     * fails with `ERR_REDIS_STORE_TIMEOUT` or, without a connection, `ERR_REDIS_STORE_CONNECT`.
     * length, ids, all and clear are many commands: for them it is the time of each.
     * @default 2000
     */
    commandTimeoutMs?: number
    /** Requests waiting at once; one more fails with `ERR_REDIS_STORE_QUEUE_FULL`. @default 10000 */
    maxPending?: number
    /**
     * What the keys and serialized sessions of waiting requests may amount to, in characters (which
     * are bytes where they are ASCII); one more fails with `ERR_REDIS_STORE_QUEUE_FULL`.
     * @default 268435456
     */
    maxPendingBytes?: number
    /**
     * What one serialized session may amount to, in bytes. A larger one fails with
     * `ERR_REDIS_STORE_ENCODE`, and the one stored before is untouched. @default 8388608
     */
    maxSessionBytes?: number
    /**
     * A session that was loaded or saved before is written even if it is not there any more, as
     * connect-redis does: a slow request then undoes a logout. @default false
     */
    resurrect?: boolean
    /**
     * What happens when a session that is saved was written by another request since it was loaded.
     * "overwrite": the last one wins, as with connect-redis. "merge": both changes are kept; needs a
     * serializer that writes JSON objects. "error": the save fails with `ERR_REDIS_STORE_CONFLICT`. A
     * function gets what was loaded, what is to be saved and what others have saved, and returns what
     * to store; a throw or a rejection is the error of the save. All but "overwrite" need a native
     * connection. @default "overwrite"
     */
    onConflict?:
      | "overwrite"
      | "merge"
      | "error"
      | ((base: SessionData, mine: SessionData, theirs: SessionData) => SessionData | Promise<SessionData>)
    /**
     * Seconds, less than `ttl`: a touch is left out if it would make a session live less than so much
     * longer. Of a store that delegates, none is. @default 0
     */
    touchAfter?: number
    /** `get` sets `cookie.expires` from PTTL, <https://redis.io/docs/latest/commands/pttl/>. @default false */
    freshExpires?: boolean
    /**
     * Seconds that a session lives at most since it was created, however often it is saved or touched.
     * The time of creation stands in the stored JSON as `"~created"`, and nowhere else. One that does
     * not say counts from its first touch or save. Needs a native connection and a serializer that
     * writes JSON objects. @default none
     */
    maxLifetime?: number
    /**
     * The store emits `disconnect` when its circuit opens and `connect` when Redis is there, which
     * express-session takes to serve requests without a session meanwhile. @default false
     */
    emitConnectionEvents?: boolean
  }

  /**
   * A session store for express-session, in Redis. Every method takes a callback or, without one,
   * returns a promise; with a callback it returns undefined. A session id is at most 4096 bytes;
   * a number is taken as its text.
   */
  export class RedisStore extends Store {
    constructor(options: RedisStoreOptions)

    /** The client that was given, if one was. Another one is not used. */
    client: any
    /** May be changed, as the fields below, and counts from the next call on. */
    prefix: string
    scanCount: number
    serializer: Serializer
    /** In seconds. */
    ttl: number | ((session: SessionData) => number)
    disableTTL: boolean
    disableTouch: boolean
    /** Whether this store has a native connection of its own; false if it uses the client's commands. */
    readonly native: boolean
    /**
     * "connecting": no connection yet, or one was lost for less than `commandTimeoutMs`; requests wait
     * for it. "ready": connected. "down": Redis has not answered for so long that requests are refused
     * at once, while the store goes on trying. "closed": by `close()`. Of a cluster, the worst of its
     * masters counts; requests on the others are served. A store that delegates is "ready" until it is
     * closed. What a connection that was not used lately is worth, `ping()` tells.
     */
    readonly status: StoreStatus

    /** Every server that holds sessions is connected. */
    on(event: "ready", listener: () => void): this
    /** A connection was lost; the store goes on trying. */
    on(event: "reconnecting", listener: () => void): this
    /** The store was closed. */
    on(event: "end", listener: () => void): this
    /** A connection was lost or could not be opened. Emitted only if someone listens. */
    on(event: "error", listener: (error: RedisStoreError) => void): this
    /** A session was not saved as it is, because of another request. */
    on(event: "conflict", listener: (conflict: Conflict) => void): this
    /** With `emitConnectionEvents`. */
    on(event: "connect" | "disconnect", listener: () => void): this
    on(event: string | symbol, listener: (...args: any[]) => void): this

    /**
     * Reads a session. Hit: the session. Miss: null. Error: `ERR_REDIS_STORE_DECODE` if what is
     * stored is not a session that `serializer` can parse.
     */
    get(sid: string, callback: (error: any, session?: SessionData | null) => void): void
    get(sid: string): Promise<SessionData | null>

    /**
     * Stores a session until `cookie.expires` or for `ttl`, exact to the millisecond. One that has
     * expired already is destroyed. One that a request has loaded, and that is not there any more, is
     * not stored. Result: null.
     */
    set(sid: string, session: SessionData, callback: (error?: any) => void): void
    set(sid: string, session: SessionData): Promise<null>

    /** Makes a stored session live as long as `set` would. One that is not there stays so. Result: null. */
    touch(sid: string, session: SessionData, callback: (error?: any) => void): void
    touch(sid: string, session: SessionData): Promise<null>

    /** Removes a session; one that is not there is no error. Result: null. */
    destroy(sid: string, callback: (error?: any) => void): void
    destroy(sid: string): Promise<null>

    /** Removes every session whose key begins with `prefix`, and no other key. Result: null. */
    clear(callback: (error?: any) => void): void
    clear(): Promise<null>

    /** Counts the sessions. */
    length(callback: (error: any, length?: number) => void): void
    length(): Promise<number>

    /** The ids of all sessions, in no order. */
    ids(callback: (error: any, ids?: string[]) => void): void
    ids(): Promise<string[]>

    /**
     * All sessions, in no order. `id` is the session's id, unless the session has an `id` of its
     * own. A value that cannot be parsed is left out, with a process warning of code
     * `CONNECT_REDIS_NATIVE_CORRUPT_SESSION` that shows a hash of its id.
     */
    all(callback: (error: any, sessions?: SessionData[]) => void): void
    all(): Promise<SessionData[]>

    /**
     * Makes `req.session` of what `get` has read; express-session calls it. The store remembers that
     * this session was loaded, and as what.
     */
    createSession(req: any, session: SessionData): Session & SessionData

    /**
     * Asks Redis whether it answers, every master of a cluster, within `commandTimeoutMs`. Result:
     * "PONG". Error: at once while the circuit is open.
     */
    ping(callback: (error: any, pong?: "PONG") => void): void
    ping(): Promise<"PONG">

    /** What the store has done since it was made; also after `close()`. Costs some microseconds. */
    stats(): Stats

    /**
     * Answers what is pending and closes the connection. Later requests fail with
     * `ERR_REDIS_STORE_CLOSED`; closing twice is no error. The given client stays open.
     */
    close(callback: (error?: any) => void): void
    close(): Promise<null>
    /** `close()`, for `await using`. */
    [Symbol.asyncDispose](): Promise<void>
  }

  /** What a store knows of its connection. */
  export type StoreStatus = "connecting" | "ready" | "down" | "closed"

  /** What `stats()` returns: numbers in an object of its own, which JSON can hold. */
  export interface Stats {
    /**
     * How many commands Redis was asked, or would have been, by lower-case name and then outcome:
     * "ok", "spared" for a touch that `touchAfter` left out, or the code of an error. Only what has
     * happened is there. Each command counts once, when it ends, however often it was sent.
     */
    commands: Record<string, Record<string, number>>
    /**
     * Of the commands that Redis answered, or did not before their deadline, how long they took from
     * call to answer: `counts[i]` took more than `boundsMs[i - 1]` and at most `boundsMs[i]`
     * milliseconds, the last one of `counts` more than any of them. `sumMs` is all of it together.
     */
    latency: { boundsMs: number[]; counts: number[]; sumMs: number }
    /** Requests of this store that wait for their answer now. */
    pending: number
    /** How many stores over one client share the connection whose numbers these are; `pending` is each one's own. */
    sharedBy: number
    /** Batches that were handed to the native half. 0 of a store that delegates, as all that follow. */
    batches: number
    /** Connections that took the place of one before. */
    reconnects: number
    /** Without what TLS adds. */
    bytesSent: number
    bytesReceived: number
  }

  /**
   * A message of the tracing channel "connect-redis-native:command" of node:diagnostics_channel. Holds
   * no key, session id or session. `length`, `ids` and `clear` are one "scan", and a merge is one
   * "evalsha".
   */
  export interface CommandMessage {
    /** The command's name in lower case. */
    command: string
    /** From `asyncStart` on, as what follows: where it went, if that is one server. */
    server?: { host?: string; port?: number; path?: string; database: number }
    /** How many requests of this turn of the event loop travelled together. */
    batchSize?: number
    /** "ok" or the code of the error. */
    outcome?: "ok" | RedisStoreErrorCode
    /** Without its cause, in which a client that is delegated to may show a command's arguments. */
    error?: RedisStoreError
  }

  /** A message of the channel "connect-redis-native:connection". */
  export interface ConnectionMessage {
    /** An event of the store; or "status": Redis went down or came back. */
    event: "ready" | "reconnecting" | "end" | "error" | "status"
    /** The store's, by now. */
    status: StoreStatus
    /** With "error". */
    error?: RedisStoreError
  }

  /** Another request has destroyed or changed a session between its load and its save. */
  export interface Conflict {
    /** It was not there any more and stays so; or it was merged; or its save was refused by `onConflict: "error"`. */
    kind: "destroyed" | "merged" | "refused"
    /** The first 8 characters of the SHA-256 of the session id, in hex. */
    sidHash: string
    /** With "merged": the paths, keys joined by dots, that both had changed. */
    paths?: string[]
  }

  /** What a request fails with. No message holds a password, a session id or a session. */
  export class RedisStoreError extends Error {
    constructor(code: RedisStoreErrorCode, message: string, cause?: unknown)
    name: "RedisStoreError"
    code: RedisStoreErrorCode
    /** What the system, the server or the serializer said, if it said something. */
    cause?: unknown
  }

  export type RedisStoreErrorCode =
    /** An option or an argument cannot be used. */
    | "ERR_REDIS_STORE_OPTIONS"
    /** There is no connection, or it was lost before the reply came. */
    | "ERR_REDIS_STORE_CONNECT"
    /** Redis refused the credentials, or they do not allow this. */
    | "ERR_REDIS_STORE_AUTH"
    /** Redis did not answer in time. */
    | "ERR_REDIS_STORE_TIMEOUT"
    /** The store was closed before. */
    | "ERR_REDIS_STORE_CLOSED"
    /** `maxPending` requests are waiting already. */
    | "ERR_REDIS_STORE_QUEUE_FULL"
    /** Redis answered with an error. */
    | "ERR_REDIS_STORE_SERVER"
    /** What came back cannot be understood. */
    | "ERR_REDIS_STORE_DECODE"
    /** Another request has written the session since it was loaded. */
    | "ERR_REDIS_STORE_CONFLICT"
    /** The session cannot be serialized, or is larger than `maxSessionBytes`. */
    | "ERR_REDIS_STORE_ENCODE"
}

export = connectRedis
