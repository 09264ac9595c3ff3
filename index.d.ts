import type { KeyObject } from "node:crypto"
import type { EventEmitter } from "node:events"

// @ts-ignore TS2307 or TS7016 without express-session's types: both names are then `any`
import type { SessionData, Store } from "express-session"

/**
 * The factory of connect-redis 3 to 6, which also carries the exports of the later majors.
 *
 * @param session express-session. The returned class extends its `Store`.
 * @returns a RedisStore whose callbacks receive the results of connect-redis 3 to 6: `"OK"` from
 * set, `"OK"` or `"EXPIRED"` from touch, the number of deleted keys from destroy and clear,
 * undefined from get if there is no session.
 */
declare function connectRedis(session: connectRedis.RedisStoreExpressSession): typeof connectRedis.RedisStore

declare namespace connectRedis {
  /** For `import RedisStore from`, with and without `esModuleInterop`. */
  export { RedisStore as default }
  export const __esModule: true

  /** The part of express-session that the factory needs. */
  export interface RedisStoreExpressSession {
    Store: abstract new (...args: any[]) => EventEmitter
  }

  /**
   * Called once. If it throws on success, it is called a second time with its own error.
   *
   * @param error null or undefined on success
   * @param result null or undefined on failure
   */
  export type RedisStoreCallback<Result = any> = (error?: any, result?: Result) => any

  /** The cookie of a stored session. */
  export interface RedisStoreCookie {
    /** Milliseconds. */
    originalMaxAge: number | null
    /** The time at which the session expires. JSON turns it into text. */
    expires?: Date | string | null | undefined
    maxAge?: number | undefined
    signed?: boolean | undefined
    httpOnly?: boolean | undefined
    path?: string | undefined
    domain?: string | undefined
    secure?: boolean | "auto" | undefined
    sameSite?: boolean | "lax" | "strict" | "none" | undefined
  }

  /** express-session's `SessionData`; without express-session's types, an object with a cookie. */
  export type RedisStoreSessionData = IfAny<SessionData, { cookie: RedisStoreCookie }, SessionData>

  /** The session type of a `RedisStore<Session>`: a cookie and the properties of `Session`. */
  export type RedisStoreSession<Session = any> = RedisStoreSessionData & (unknown extends Session ? unknown : Session)

  // By keyof, because a conditional type over an unresolved import is unresolved too.
  type IfAny<Type, Then, Else> = symbol extends keyof Type ? Then : Else

  // Methods instead of function properties: TypeScript compares their parameters in both directions, so that a
  // function with a narrower session type is accepted.
  interface SessionFunctions<Session> {
    ttl(session: Session): number
    resolve(base: Session, mine: Session, theirs: Session): Parsed | Promise<Parsed>
    user(session: Session): RedisStoreUser | null | undefined | false
    info(session: Session, req?: any): object | undefined
  }

  type Parsed = RedisStoreSessionData & { [property: string]: any }

  /** The id of a user. A number is the same user as its text. */
  export type RedisStoreUser = string | number | bigint

  /** The limit of `maxSessionsPerUser`, and the action above it. */
  export interface RedisStoreSessionLimit {
    /** The most sessions of a user, a positive integer. */
    max: number
    /**
     * - "end-oldest": the save succeeds, and the user's oldest sessions are destroyed.
     * - "reject": the save fails with `ERR_REDIS_STORE_SESSION_LIMIT`.
     */
    onLimit: "end-oldest" | "reject"
  }

  /** A session of a user, as `sessionsOf` lists it. */
  export interface RedisStoreUserSession {
    /**
     * The SHA-256 of the session id, in Base64 for URLs: the argument of `destroyHandle`. It cannot be used as
     * a session id.
     */
    handle: string
    /** The time of the sign-in. */
    created: Date
    /** The time of the last save or touch. */
    lastSeen: Date
    /** The time at which the session expires; null if it never expires. */
    expires: Date | null
    /** The result of the option `sessionInfo` after a round trip through JSON; without the option an empty object. */
    info: any
    /** True for the session `current` of the call. */
    current: boolean
  }

  /** Turns sessions into text and back. */
  export interface RedisStoreSerializer<Session = RedisStoreSessionData> {
    /**
     * Returns the session, or a promise of it. If it throws, rejects or returns something other than
     * an object, the request fails with `ERR_REDIS_STORE_DECODE`.
     */
    parse(text: string): Parsed | Promise<Parsed>
    /**
     * Returns a text that is not empty. If it throws or returns something else, the request fails with
     * `ERR_REDIS_STORE_ENCODE` and the stored session stays as it is.
     */
    stringify(session: Session): string
  }

  /**
   * A Redis client: of redis 2 to 6, ioredis, iovalkey, valkey-glide, @upstash/redis, a wrapper around one of
   * them, or an object with the same methods. An object with none of the three methods below does not compile.
   * A store that delegates also calls methods such as `expire`, `mGet` and `scanIterator`; if one is missing,
   * the request that needs it fails.
   */
  export interface RedisStoreClient {
    get?: (...args: any) => any
    set?: (...args: any) => any
    del?: (...args: any) => any
  }

  /** The address of a server: `"host:port"`, or an object. `host` is by default `"localhost"`. */
  export type RedisStoreNode = string | { host?: string | null | undefined; port?: number | null | undefined }

  /** TLS settings with the same meaning as in Node's `tls.connect`. Certificates and keys are PEM. */
  export interface RedisStoreTlsOptions {
    /** The certificate authorities to trust. @default those of the system */
    ca?: string | Buffer | Array<string | Buffer> | null | undefined
    /** The client's certificate chain; needs `key`. @default none */
    cert?: string | Buffer | null | undefined
    /** The private key of `cert`, not encrypted. @default none */
    key?: string | Buffer | null | undefined
    /** The host name that the server's certificate must be valid for. @default the host */
    servername?: string | null | undefined
    /** False accepts every certificate. @default true */
    rejectUnauthorized?: boolean | null | undefined
  }

  /** The user and the password that the store logs in with. */
  export interface RedisStoreCredentials {
    /** ACL user. @default "default", Redis's predefined user */
    username?: string | null | undefined
    password: string
  }

  /** The sentinels to ask for a master. */
  export interface RedisStoreSentinelOptions {
    /** The name of the master group. */
    name: string
    /** At least one sentinel. The store asks all of them in parallel. The default port is 26379. */
    nodes: RedisStoreNode[]
    /** ACL user on the sentinels. @default none */
    username?: string | null | undefined
    /** Password on the sentinels. @default none */
    password?: string | null | undefined
    /** TLS to the sentinels. @default false */
    tls?: boolean | RedisStoreTlsOptions | null | undefined
  }

  /** Options that do not concern the connection. Null and undefined mean the default. */
  export interface RedisStoreSharedOptions<Session = RedisStoreSessionData> {
    /** The beginning of every key; the session id follows. @default "sess:" */
    prefix?: string | null | undefined
    /**
     * The lifetime of a session without `cookie.expires`, in seconds. A function is called for every
     * session that is saved or touched, also with `cookie.expires`, and returns the lifetime in seconds;
     * the session is destroyed if the result is 0 or less.
     * @default 86400
     */
    ttl?: number | SessionFunctions<Session>["ttl"] | null | undefined
    /** Sessions never expire: `ttl` and `cookie.expires` are ignored, and touch does nothing. @default false */
    disableTTL?: boolean | null | undefined
    /** touch does nothing. @default false */
    disableTouch?: boolean | null | undefined
    /** Turns sessions into text and back. @default JSON */
    serializer?: RedisStoreSerializer<Session> | null | undefined
    /**
     * The number of keys that Redis looks at in each step of length, ids, all and clear, 1 to 1000000.
     * Numbers below 1000 count as 1000.
     * @default 100
     */
    scanCount?: number | null | undefined
    /** The limit for one attempt to connect, from name look-up to login, in milliseconds. @default 5000 */
    connectTimeoutMs?: number | null | undefined
    /**
     * The limit for a request from call to callback, in milliseconds. It includes the wait for a connection.
     * After it the request fails with `ERR_REDIS_STORE_TIMEOUT` or, without a connection, with
     * `ERR_REDIS_STORE_CONNECT`. length, ids, all and clear send many commands; each has this limit.
     * @default 2000
     */
    commandTimeoutMs?: number | null | undefined
    /** The limit of pending requests. Above it, requests fail with `ERR_REDIS_STORE_QUEUE_FULL`. @default 10000 */
    maxPending?: number | null | undefined
    /**
     * The limit for the keys and serialized sessions of all pending requests, in characters (equal to
     * bytes for ASCII). Above it, requests fail with `ERR_REDIS_STORE_QUEUE_FULL`.
     * @default 268435456
     */
    maxPendingBytes?: number | null | undefined
    /**
     * The limit for one serialized session, in bytes. The save of a larger one fails with
     * `ERR_REDIS_STORE_ENCODE`, and the stored session stays as it is.
     * @default 8388608
     */
    maxSessionBytes?: number | null | undefined
    /**
     * The rule for the save of a session that was destroyed after it was loaded. A session that expired or
     * was evicted is always saved.
     * - "skip": it is not saved, and the save succeeds.
     * - "error": the save fails with `ERR_REDIS_STORE_DESTROYED`.
     * - "save": it is saved, as with connect-redis. A slow request can then undo a logout.
     * @default "skip"
     */
    onDestroyed?: "skip" | "error" | "save" | null | undefined
    /**
     * Add a property `~loaded` to each session that `get` returns, which JSON leaves out: for frameworks
     * other than express-session. Without express-session installed it is always added.
     * @default false
     */
    tagSessions?: boolean | null | undefined
    /**
     * The rule for a session that another request has saved since it was loaded.
     * - "overwrite": the last save wins, as with connect-redis.
     * - "merge": both changes are kept. Needs a serializer that writes JSON objects.
     * - "error": the save fails with `ERR_REDIS_STORE_CONFLICT`.
     * - A function receives the loaded session, the session to save and the stored session, and returns the
     *   session to store, or a promise of it. If it throws or rejects, the save fails with that error.
     *
     * Every rule but "overwrite" needs a native connection.
     * @default "overwrite"
     */
    onConflict?: "overwrite" | "merge" | "error" | SessionFunctions<Session>["resolve"] | null | undefined
    /**
     * Skip a touch that would extend the life of a session by less than this, in seconds, also if another
     * process has extended it: a get that precedes a due touch asks Redis for the expiry. Must be less than
     * `ttl`. A store that delegates does not skip touches.
     * @default 0
     */
    touchAfter?: number | null | undefined
    /**
     * get sets `cookie.expires` to the time at which the key expires in Redis
     * (<https://redis.io/docs/latest/commands/pttl/>).
     * @default false
     */
    freshExpires?: boolean | null | undefined
    /**
     * The limit for the life of a session since it was created, in seconds, however often it is saved or
     * touched. The time of creation is stored in the JSON as `"~created"` and is not visible in the
     * session. A session without it counts from its next save or touch. Needs a native connection and a
     * serializer that writes JSON objects.
     * @default none
     */
    maxLifetime?: number | null | undefined
    /**
     * Keep each session under the SHA-256 of its id: a reader of Redis has no ids to use. `ids` and `all` then
     * give handles, which `destroyHandle` takes.
     * - true: only hashed keys are looked at.
     * - "migrate": a session that is still under its id is moved to its hashed key when it is first asked for.
     * - "prepare": sessions stay under their ids, and those that other processes have moved are found: for the first
     *   step of a migration. With `onConflict` or `maxLifetime` only without `encryption` and `compression`.
     *
     * "migrate" and "prepare" do not find sessions under ids of 43 letters, digits, `-` and `_`, which could be hashes.
     * @default false
     */
    hashIds?: boolean | "migrate" | "prepare" | null | undefined
    /** Encrypt what is stored. Needs the native binary, also where the store delegates. @default none */
    encryption?: RedisStoreEncryption | null | undefined
    /** Compress what is stored, by lz4. The length of a compressed session can show its content. @default none */
    compression?: RedisStoreCompression | null | undefined
    /**
     * Emit `disconnect` when Redis is down and `connect` when it is back. express-session then serves
     * requests without a session in between.
     * @default false
     */
    emitConnectionEvents?: boolean | null | undefined
    /**
     * Names the user of a session: for `sessionsOf`, `destroyUser` and `destroyHandle`. Returns undefined,
     * null, false or an empty string for a session without a user. Called for every session that is saved or
     * touched, and for the parsed sessions of a list. If it throws or returns something else, the save fails. A
     * store that delegates needs a client of a known package, with `eval` and `pttl`.
     * @default none
     */
    userOf?: SessionFunctions<Session>["user"] | null | undefined
    /**
     * Describes a session in the list of its user, for example by address and browser. Called at sign-in, and
     * whenever the entry is written again; `req` is the request of an express-session session. Returns an
     * object of at most 4096 characters of JSON; a larger one fails the save with `ERR_REDIS_STORE_ENCODE`.
     * Needs `userOf`.
     * @default none
     */
    sessionInfo?: SessionFunctions<Session>["info"] | null | undefined
    /**
     * The limit for the sessions of a user. A number means "end-oldest": see `RedisStoreSessionLimit`. The
     * limit is enforced before `set` answers. Needs `userOf`.
     * @default none
     */
    maxSessionsPerUser?: number | RedisStoreSessionLimit | null | undefined
    /**
     * The beginning of the keys that list the sessions of users, one for each user. A hash of the user follows.
     * Not empty. Needs `userOf`.
     * @default "users:" and `prefix`
     */
    userPrefix?: string | null | undefined
  }

  /** One key of the option `encryption`. */
  export interface RedisStoreEncryptionKey {
    /** Its name in stored values: 1 to 32 letters, digits, "-" and "_". */
    id: string
    /**
     * 32 random bytes, as bytes, a secret KeyObject of node:crypto, or in base64 with or without white space around it:
     * `npx connect-redis-native keygen` prints some.
     */
    key: Uint8Array | ArrayBuffer | KeyObject | string
  }

  /** How sessions are encrypted: AES-256-GCM, each bound to its key in Redis. */
  export interface RedisStoreEncryption {
    /**
     * The first key seals, all open. A function or a promise of them is for a key management service: requests
     * wait for it within their deadline, and a function that fails is called again.
     */
    keys:
      | readonly RedisStoreEncryptionKey[]
      | PromiseLike<readonly RedisStoreEncryptionKey[]>
      | (() => readonly RedisStoreEncryptionKey[] | PromiseLike<readonly RedisStoreEncryptionKey[]>)
    /**
     * The rule for sessions in plain text.
     * - "accept": they are read, and encrypted when they are next saved.
     * - "reject": they fail with `ERR_REDIS_STORE_DECODE`.
     * - "write": they are read and written; what is encrypted is read. For the first and the last step of a
     *   migration, while some processes do not have the keys.
     * @default "accept"
     */
    plaintext?: "accept" | "reject" | "write" | null | undefined
  }

  /** Which sessions are compressed. */
  export interface RedisStoreCompression {
    /** Those whose text has at least so many bytes, 1 to 268435456. */
    minBytes: number
  }

  /** The result of `reseal()`, and the argument of its event. */
  export interface RedisStoreResealed {
    /** Sessions that were there at the start. */
    total: number
    /** Sessions that were looked at. */
    done: number
    /** Sessions that were written. */
    resealed: number
    /** Sessions that do not open, or that others wrote all the time; they are as they were. */
    failed: number
  }

  /** Connection settings. With `client`, the store takes them from the client. Null and undefined mean the default. */
  export interface RedisStoreConnectionOptions {
    /** TLS to Redis. @default false; true for a `rediss://` URL */
    tls?: boolean | RedisStoreTlsOptions | null | undefined
    /** ACL user. @default "default", Redis's predefined user */
    username?: string | null | undefined
    /** Password; without it and `username` no AUTH is sent. @default none */
    password?: string | null | undefined
    /**
     * Returns user and password in place of `username` and `password`. Called at every connect, and again when
     * Redis rejects the current password. If it throws, rejects or takes longer than `connectTimeoutMs`, the
     * attempt fails with `ERR_REDIS_STORE_AUTH`.
     * @default none
     */
    credentials?: (() => RedisStoreCredentials | Promise<RedisStoreCredentials>) | null | undefined
    /** Database number; 0 with a cluster. @default 0 */
    database?: number | null | undefined
    /** The name of the connections in CLIENT LIST, without spaces. @default none */
    clientName?: string | null | undefined
  }

  type Without<Name extends string> = { [Key in Name]?: null | undefined }

  /** Options of a store that has a Redis client. */
  export interface RedisStoreClientOptions<Session = RedisStoreSessionData>
    extends
      RedisStoreSharedOptions<Session>,
      Without<"url" | "nodes" | "sentinel">,
      Without<keyof RedisStoreConnectionOptions> {
    /**
     * A Redis client, connected or not. The store reads the client's settings (addresses, user, password,
     * database, TLS, name, key prefix) when it first connects, and opens connections of its own. If it cannot
     * read or follow these settings, or the client's commands are wrapped (a Proxy, a subclass, own methods),
     * it delegates: it calls the client's methods, and `native` is false.
     */
    client: RedisStoreClient | null | undefined
  }

  /** Options of a store for one server. */
  export interface RedisStoreUrlOptions<Session = RedisStoreSessionData>
    extends RedisStoreSharedOptions<Session>, RedisStoreConnectionOptions, Without<"client" | "nodes" | "sentinel"> {
    /**
     * `redis://user:password@host:port/database`, `rediss://` for TLS, or `redis+unix:///path?db=database`;
     * `?family=4` or `?family=6` selects addresses of one version. Values in the URL override `username`,
     * `password` and `database`.
     */
    url: string | URL | null | undefined
  }

  /** Options of a store for a cluster. */
  export interface RedisStoreClusterOptions<Session = RedisStoreSessionData>
    extends RedisStoreSharedOptions<Session>, RedisStoreConnectionOptions, Without<"client" | "url" | "sentinel"> {
    /** Some nodes of the cluster; the store asks them for the others. The default port is 6379. */
    nodes: RedisStoreNode[] | null | undefined
  }

  /** Options of a store for the master of a sentinel group. */
  export interface RedisStoreSentinelSetOptions<Session = RedisStoreSessionData>
    extends RedisStoreSharedOptions<Session>, RedisStoreConnectionOptions, Without<"client" | "url" | "nodes"> {
    /** The sentinels, and the name of the master group. */
    sentinel: RedisStoreSentinelOptions | null | undefined
  }

  /**
   * Options of a store. Exactly one of `client`, `url`, `nodes` and `sentinel` must have a value. A value
   * that cannot be used throws a TypeError with code `ERR_REDIS_STORE_OPTIONS`.
   */
  export type RedisStoreOptions<Session = RedisStoreSessionData> =
    | RedisStoreClientOptions<Session>
    | RedisStoreUrlOptions<Session>
    | RedisStoreClusterOptions<Session>
    | RedisStoreSentinelSetOptions<Session>

  /** The state of the connection to Redis. See `RedisStore.status`. */
  export type RedisStoreStatus = "connecting" | "ready" | "down" | "closed"

  /** The events of a store, with the arguments of their listeners. */
  export interface RedisStoreEvents {
    /** Every server that holds sessions is connected, or the client serves the store. */
    ready: []
    /** A connection was lost; the store reconnects. */
    reconnecting: []
    /** The store was closed. */
    end: []
    /** A connection was lost or could not be opened. Not emitted without a listener. */
    error: [error: RedisStoreError]
    /** A save was dropped, merged or refused because of another request. */
    conflict: [conflict: RedisStoreConflict]
    /** `reseal()` has come so far. */
    reseal: [progress: RedisStoreResealed]
    /** Redis is back. Emitted only with the option `emitConnectionEvents`. */
    connect: []
    /** Redis is down. Emitted only with the option `emitConnectionEvents`. */
    disconnect: []
  }

  /** The names of the events of a store. */
  export type RedisStoreEvent = keyof RedisStoreEvents

  /** A listener of one event. */
  export type RedisStoreListener<Event extends RedisStoreEvent> = (...args: RedisStoreEvents[Event]) => void

  const StoreBase: IfAny<Store, typeof EventEmitter, typeof Store>

  /** Calls the factory: `RedisStore(session)`, for a default import of connect-redis 3 to 6. */
  export function RedisStore(session: RedisStoreExpressSession): typeof RedisStore

  /**
   * A session store for express-session and @fastify/session.
   *
   * Methods take a callback or return a promise. With a callback, the promise resolves to undefined after the
   * callback was called, and never rejects; calls made together share one promise. The declared type is that of
   * connect-redis 10, so that its subclasses compile. A session id has at most 4096 bytes; a longer one fails
   * with `ERR_REDIS_STORE_OPTIONS`. A number becomes text.
   *
   * @typeParam Session the properties of a session besides its cookie. Without it, get and all return
   * `any`, and set takes express-session's `SessionData`.
   */
  export class RedisStore<Session extends object = any> extends StoreBase {
    /** @throws TypeError with code `ERR_REDIS_STORE_OPTIONS` */
    constructor(options: RedisStoreOptions<RedisStoreSession<NoInfer<Session>>>)
    // ConstructorParameters uses the last overload, which is the same as in connect-redis 10.
    constructor(options: RedisStoreClientOptions<RedisStoreSession<NoInfer<Session>>>)

    /** The client in the options, if there is one. Assigning another one has no effect. */
    client: any
    /** This field and those below may be changed; a change applies from the next call. */
    prefix: string
    scanCount: number
    serializer: RedisStoreSerializer<RedisStoreSession<Session>>
    /** Seconds. */
    ttl: number | SessionFunctions<RedisStoreSession<Session>>["ttl"]
    disableTTL: boolean
    disableTouch: boolean
    /** True if the store has a native connection; false if it delegates to the client's methods. */
    readonly native: boolean
    /**
     * - "connecting": there is no connection yet, or it was lost less than `commandTimeoutMs` ago.
     *   Requests wait for it.
     * - "ready": connected.
     * - "down": Redis has not answered for `commandTimeoutMs`. Requests fail at once until it is back.
     * - "closed": `close()` was called.
     *
     * In a cluster it is the worst status of the masters; requests to the other masters succeed.
     */
    readonly status: RedisStoreStatus

    on<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    once<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    off<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    addListener<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    removeListener<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    prependListener<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this
    prependOnceListener<Event extends RedisStoreEvent>(event: Event, listener: RedisStoreListener<Event>): this

    /**
     * Reads a session. Result: the session, or null if there is none.
     * Error: `ERR_REDIS_STORE_DECODE` if the stored value is not a session that `serializer` can parse.
     */
    get(
      sid: string,
      callback?: RedisStoreCallback<(Session & RedisStoreSessionData) | null>,
    ): Promise<(Session & RedisStoreSessionData) | null>

    /**
     * Stores a session until `cookie.expires` or for `ttl`, exact to the millisecond. Destroys a session that
     * has expired already. Does not store a session that this store loaded and that was destroyed since.
     * Result: null. Error: `ERR_REDIS_STORE_ENCODE` if the session cannot be serialized or is larger than
     * `maxSessionBytes`; `ERR_REDIS_STORE_CONFLICT` with `onConflict: "error"`; `ERR_REDIS_STORE_DESTROYED`
     * with `onDestroyed: "error"`.
     */
    set(sid: string, session: RedisStoreSession<Session>, callback?: RedisStoreCallback): Promise<any>

    /**
     * Extends the life of a stored session to `cookie.expires` or by `ttl`. Result: null, also if the session
     * does not exist.
     */
    touch(sid: string, session: RedisStoreSession<Session>, callback?: RedisStoreCallback): Promise<any>

    /** Deletes a session. Result: null, also if the session does not exist. */
    destroy(sid: string, callback?: RedisStoreCallback): Promise<any>

    /**
     * Destroys the session of a handle, for any user. `sessionsOf` returns handles, and with `hashIds` so do `ids` and
     * `all`. With `hashIds: "migrate"` or "prepare" it scans all keys. Result: true; false if the session does not
     * exist. Error: `ERR_REDIS_STORE_OPTIONS` if the argument is not a handle, or without `hashIds`.
     */
    destroyHandle(handle: string, callback?: RedisStoreCallback<boolean>): Promise<boolean>

    /**
     * Opens every session, and writes each that is not sealed as the options say now: with the first key, or in plain
     * text, compressed or not. Its life stays as it is. A session that does not open counts as failed; rejects if the
     * connection fails. One hundred at a time; may be called again, and then goes on with what is left. With
     * `hashIds: "migrate"` it moves every session to its hashed key. Emits `reseal` after each hundred.
     * Result: how many there were.
     */
    reseal(callback?: RedisStoreCallback<RedisStoreResealed>): Promise<RedisStoreResealed>

    /** Deletes every session under `prefix`, and no other key. Result: null. */
    clear(callback?: RedisStoreCallback): Promise<any>

    /**
     * Lists the existing sessions of a user, the last seen first. `current` is the id of the session that gets
     * `current: true`. Result: an array. Every command of this method and the next two has the limit
     * `commandTimeoutMs`. Error: `ERR_REDIS_STORE_OPTIONS` without the option `userOf`, or if `user` is not a
     * string or number.
     */
    sessionsOf(
      user: RedisStoreUser,
      options?: { current?: string | null | undefined } | null,
      callback?: RedisStoreCallback<RedisStoreUserSession[]>,
    ): Promise<RedisStoreUserSession[]>
    sessionsOf(
      user: RedisStoreUser,
      callback: RedisStoreCallback<RedisStoreUserSession[]>,
    ): Promise<RedisStoreUserSession[]>

    /**
     * Destroys the sessions of a user, except the session with the id `except`. A concurrent sign-in may fail
     * as if its session had been destroyed. Result: the number of destroyed sessions.
     */
    destroyUser(
      user: RedisStoreUser,
      options?: { except?: string | null | undefined } | null,
      callback?: RedisStoreCallback<number>,
    ): Promise<number>
    destroyUser(user: RedisStoreUser, callback: RedisStoreCallback<number>): Promise<number>

    /** Destroys one session of a user. Result: true; false if the user has no session with this handle. */
    destroyHandle(user: RedisStoreUser, handle: string, callback?: RedisStoreCallback<boolean>): Promise<boolean>

    /** Counts the sessions. Result: their number. */
    length(callback: (error: any, length: number) => any): Promise<number>
    length(callback?: RedisStoreCallback): Promise<number>

    /** Lists the sessions. Result: their ids, in no order; with `hashIds` their handles. */
    ids(callback: (error: any, ids: string[]) => any): Promise<string[]>
    ids(callback?: RedisStoreCallback): Promise<string[]>

    /**
     * Reads all sessions. Result: the sessions, in no order; `id` is the session id, with `hashIds` the handle,
     * unless the session has an `id` of its own. Values that cannot be parsed are left out, with one process warning of code
     * `CONNECT_REDIS_NATIVE_CORRUPT_SESSION`.
     */
    all(
      callback: (error: any, sessions: Array<Session & RedisStoreSessionData>) => any,
    ): Promise<Array<Session & RedisStoreSessionData>>
    all(callback?: RedisStoreCallback): Promise<Array<Session & RedisStoreSessionData>>

    /**
     * Sends PING to Redis, to every master of a cluster; with a client without `ping`, it reads a key. Result:
     * "PONG". Error: after `commandTimeoutMs` without an answer, and at once while `status` is "down".
     */
    ping(callback?: RedisStoreCallback<"PONG">): Promise<"PONG">

    /** The counters of this store since it was created, also after `close()`. A call takes microseconds. */
    stats(): RedisStoreStats

    /**
     * Waits for the pending requests (for `all()`, all its pages), then closes the native connection; the
     * client stays open. Later requests fail with `ERR_REDIS_STORE_CLOSED`. May be called again. Result: null.
     */
    close(callback?: RedisStoreCallback): Promise<any>

    /** `await using store = new RedisStore(...)` calls `close()` at the end of the block. */
    [Symbol.asyncDispose](): Promise<void>
  }

  /** The result of `stats()`: plain numbers, which JSON can represent. */
  export interface RedisStoreStats {
    /**
     * The number of commands by lower-case name and outcome. Outcomes are "ok", "spared" for a touch that
     * `touchAfter` skipped, and error codes. Combinations that have not happened are absent. A command counts
     * once, when it ends, even if it was sent again.
     */
    commands: Record<string, Record<string, number>>
    /**
     * The time from call to answer, for commands that Redis answered or that have timed out. `counts[i]`
     * commands took more than `boundsMs[i - 1]` and at most `boundsMs[i]` milliseconds; the last item of
     * `counts` is for commands above all bounds. `sumMs` is the sum of all times.
     */
    latency: { boundsMs: number[]; counts: number[]; sumMs: number }
    /** Unanswered requests of this store. */
    pending: number
    /** The number of stores that share this connection: stores over one client with equal limits. `pending` is per store. */
    sharedBy: number
    /** Batches that were passed to the native code. For a store that delegates, this field and those below are 0. */
    batches: number
    /** Connections that replaced an earlier one. */
    reconnects: number
    /** Bytes, without the overhead of TLS. */
    bytesSent: number
    /** Bytes, without the overhead of TLS. */
    bytesReceived: number
  }

  /**
   * A message of the tracing channel "connect-redis-native:command" of node:diagnostics_channel. It contains no
   * key, session id or session. `length`, `ids` and `clear` are one "scan" each; a merge is one "evalsha".
   */
  export interface RedisStoreCommandMessage {
    /** The command's name in lower case. */
    command: string
    /** The server, if there is only one. This and the properties below are present from `asyncStart` on. */
    server?: { host?: string; port?: number; path?: string; database: number }
    /** The number of requests in the batch of this request. */
    batchSize?: number
    /** "ok" or the code of the error. */
    outcome?: "ok" | RedisStoreErrorCode
    /** The error without its cause, since some clients put the arguments of a command into the cause. */
    error?: RedisStoreError
  }

  /** A message of the channel "connect-redis-native:connection" of node:diagnostics_channel. */
  export interface RedisStoreConnectionMessage {
    /** An event of the store, or "status" after a change of its status. */
    event: "ready" | "reconnecting" | "end" | "error" | "status"
    /** The status of the store after the event. */
    status: RedisStoreStatus
    /** Present with "error". */
    error?: RedisStoreError
  }

  /** The argument of `conflict`: another request destroyed or changed a session between its load and its save. */
  export interface RedisStoreConflict {
    /**
     * - "destroyed": the session was destroyed meanwhile, or the reason is unknown, and it was not saved.
     * - "merged": both changes were kept, by `onConflict: "merge"` or a function.
     * - "refused": the session was not saved, by `onConflict: "error"`.
     */
    kind: "destroyed" | "merged" | "refused"
    /** The first 8 characters of the SHA-256 of the session id, in hexadecimal. */
    sidHash: string
    /** With "merged": the properties that both requests had changed, as paths with dots. */
    paths?: string[]
  }

  /** The error of a request. Its message contains no password, session id or session. */
  export class RedisStoreError extends Error {
    constructor(code: RedisStoreErrorCode, message: string, cause?: unknown)
    name: "RedisStoreError"
    code: RedisStoreErrorCode
    /** The error of the system, the server or the serializer. Errors of the system and the server have a `code`. */
    cause?: unknown
  }

  /** The codes of errors. */
  export type RedisStoreErrorCode =
    /** An option or an argument cannot be used. */
    | "ERR_REDIS_STORE_OPTIONS"
    /** There is no connection, or it was lost before the reply. */
    | "ERR_REDIS_STORE_CONNECT"
    /** Redis rejected the credentials, or they do not permit the command. */
    | "ERR_REDIS_STORE_AUTH"
    /** Redis did not answer in time. */
    | "ERR_REDIS_STORE_TIMEOUT"
    /** The store is closed. */
    | "ERR_REDIS_STORE_CLOSED"
    /** `maxPending` or `maxPendingBytes` is reached. */
    | "ERR_REDIS_STORE_QUEUE_FULL"
    /** Redis answered with an error. */
    | "ERR_REDIS_STORE_SERVER"
    /** The stored value is not a session that the serializer can parse. */
    | "ERR_REDIS_STORE_DECODE"
    /** Another request has written the session since it was loaded. */
    | "ERR_REDIS_STORE_CONFLICT"
    /** The session cannot be serialized, or is larger than `maxSessionBytes`. */
    | "ERR_REDIS_STORE_ENCODE"
    /** The session was destroyed after it was loaded. */
    | "ERR_REDIS_STORE_DESTROYED"
    /** The user of the session has as many sessions as `maxSessionsPerUser` permits. */
    | "ERR_REDIS_STORE_SESSION_LIMIT"
}

export = connectRedis
