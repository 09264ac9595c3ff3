// Subclasses, with every method overridden in the ways that connect-redis 10 permits.
import type * as express from "express"
import type { SessionData } from "express-session"
import { RedisStore } from "connect-redis"

type Callback = (error?: unknown, data?: any) => any
type Options = ConstructorParameters<typeof RedisStore>[0]

export class Traced extends RedisStore {
  override get(sid: string, cb?: Callback) {
    return super.get(sid, cb)
  }
  override set(sid: string, session: SessionData, cb?: Callback) {
    return super.set(sid, session, cb)
  }
  override touch(sid: string, session: SessionData, cb?: Callback) {
    return super.touch(sid, session, cb)
  }
  override destroy(sid: string, cb?: Callback) {
    return super.destroy(sid, cb)
  }
  override clear(cb?: Callback) {
    return super.clear(cb)
  }
  override length(cb?: Callback) {
    return super.length(cb)
  }
  override ids(cb?: Callback) {
    return super.ids(cb)
  }
  override all(cb?: Callback) {
    return super.all(cb)
  }
}

export class Declared extends RedisStore {
  override get(sid: string, cb?: Callback): Promise<any> {
    return cb ? super.get(sid, cb) : super.get(sid)
  }
  override set(sid: string, session: SessionData, cb?: Callback): Promise<any> {
    return cb ? super.set(sid, session, cb) : super.set(sid, session)
  }
  override touch(sid: string, session: SessionData, cb?: Callback): Promise<any> {
    return cb ? super.touch(sid, session, cb) : super.touch(sid, session)
  }
  override destroy(sid: string, cb?: Callback): Promise<any> {
    return cb ? super.destroy(sid, cb) : super.destroy(sid)
  }
  override clear(cb?: Callback): Promise<any> {
    return cb ? super.clear(cb) : super.clear()
  }
  override length(cb?: Callback): Promise<any> {
    return cb ? super.length(cb) : super.length()
  }
  override ids(cb?: Callback): Promise<any> {
    return cb ? super.ids(cb) : super.ids()
  }
  override all(cb?: Callback): Promise<any> {
    return cb ? super.all(cb) : super.all()
  }
}

export class Asynchronous extends RedisStore {
  override async get(sid: string): Promise<SessionData | null> {
    const found = await super.get(sid)
    return found?.user ? found : null
  }
  override async set(sid: string, session: SessionData, cb?: (err?: any) => void): Promise<void> {
    await super.set(sid, session, cb)
  }
  override async touch(sid: string, session: SessionData): Promise<void> {
    await super.touch(sid, session)
  }
  override async destroy(sid: string, cb?: (err?: any) => void): Promise<void> {
    try {
      await super.destroy(sid)
      cb?.()
    } catch (error) {
      cb?.(error)
    }
  }
  override async clear(): Promise<void> {
    await super.clear()
  }
  override async length(): Promise<number> {
    return (await super.length()) - 1
  }
  override async ids(): Promise<string[]> {
    return (await super.ids()).map((sid: string) => sid.slice(1))
  }
  override async all(): Promise<SessionData[]> {
    return (await super.all()).filter((session: SessionData) => session.user !== "")
  }
}

export class FromParameters extends RedisStore {
  override async get(sid: string, cb?: Parameters<RedisStore["get"]>[1]): Promise<any> {
    if (sid === "") return cb ? cb(null) : null
    return super.get(sid, cb)
  }
  override set(...args: Parameters<RedisStore["set"]>): ReturnType<RedisStore["set"]> {
    return super.set(...args)
  }
  override destroy(sid: string, ...rest: any[]): Promise<any> {
    return super.destroy(sid, ...rest)
  }
  override async length(cb?: Parameters<RedisStore["length"]>[0]): Promise<any> {
    return cb ? cb(null) : super.length()
  }
  override async ids(cb?: Parameters<RedisStore["ids"]>[0]): Promise<any> {
    return cb ? cb() : super.ids()
  }
  override async all(cb?: Parameters<RedisStore["all"]>[0]): Promise<any> {
    return cb ? cb(new Error("no")) : super.all()
  }
}

export class Configured extends RedisStore {
  declare client: any
  override prefix = "app:"
  override ttl = (session: SessionData): number => (session.user === "" ? 60 : 3600)
  readonly seen = new Set<string>()
  #hidden = 0
  constructor(client: any, options: Omit<Options, "client"> = {}) {
    super({ ...options, client, disableTouch: true })
    this.scanCount = 500
    this.serializer = { parse: (text) => JSON.parse(text), stringify: (session) => JSON.stringify(session) }
    this.on("connect", () => this.#hidden++)
    this.emit("own", this.#hidden)
  }
  override createSession(req: express.Request, session: SessionData) {
    this.seen.add(req.sessionID)
    return super.createSession(req, session)
  }
  override regenerate(req: express.Request, callback: (err?: any) => any): void {
    super.regenerate(req, callback)
  }
}

export class Tenants extends RedisStore {
  constructor(options: Options, tenant: string) {
    super({ ...options, prefix: `${tenant}:${options.prefix ?? "sess:"}` })
  }
}

function counted<Base extends new (...args: any[]) => RedisStore>(Store: Base) {
  return class Counted extends Store {
    calls = 0
    override get(sid: string, cb?: Callback): Promise<any> {
      this.calls++
      return super.get(sid, cb)
    }
  }
}
export const mixed: number = new (counted(RedisStore))({ client: {} }).calls

interface Extended extends Options {
  tenant: string
}
export const extended: Extended = { client: {} as any, tenant: "a", ttl: 5 }
