// RedisStore<Session>: sessions of a known shape.
import { promisify } from "node:util"
import session, { type SessionData, type Store } from "express-session"
import { RedisStore, type RedisStoreOptions, type RedisStoreSession } from "connect-redis-native"

interface Profile {
  name: string
  roles?: string[]
}
interface Visit extends SessionData {
  visits: number
}

const options: RedisStoreOptions<Visit> = {
  url: "redis://localhost",
  ttl: (visit) => visit.visits,
  onConflict: (base, mine, theirs) => ({ ...theirs, visits: mine.visits + theirs.visits - base.visits }),
}
const visits = new RedisStore<Visit>(options)
const profiles = new RedisStore<Profile>({
  client: {},
  ttl: (profile) => profile.name.length,
  serializer: { parse: (text) => JSON.parse(text), stringify: (profile) => profile.name },
})
const cookie = new session.Cookie()

export const stores: Store[] = [visits, profiles]
export const untyped: RedisStore[] = [visits, profiles]
export const middleware = session({ store: profiles, secret: "secret" })

export async function use(): Promise<unknown> {
  const found = await profiles.get("sid")
  const name: string | undefined = found?.name
  const expires: Date | null | undefined = found?.cookie.expires
  const count: number | undefined = (await visits.get("sid"))?.visits
  const roles: Array<string[] | undefined> = (await profiles.all()).map((one) => one.roles)
  const promised: number | undefined = (await promisify(visits.get.bind(visits))("sid"))?.visits
  profiles.get("sid", (_error, profile) => profile?.name.toUpperCase())
  profiles.all((_error, sessions) => sessions.map((one) => one.name))
  await profiles.set("sid", { cookie, name: "ada" })
  await visits.touch("sid", { cookie, visits: 1 })
  // @ts-expect-error the session may be missing
  void (await profiles.get("sid")).name
  // @ts-expect-error the name is missing
  void profiles.set("sid", { cookie })
  // @ts-expect-error the cookie is missing
  void profiles.set("sid", { name: "ada" })
  // @ts-expect-error visits are a number
  void visits.set("sid", { cookie, visits: "many" })
  // @ts-expect-error a property that the session does not have
  void found?.surname
  return [name, expires, count, roles, promised]
}

export class Typed<Session extends object> extends RedisStore<Session> {
  override async get(sid: string): Promise<(Session & SessionData) | null> {
    return super.get(sid)
  }
  override set(sid: string, session: RedisStoreSession<Session>, callback?: (error?: any) => void): Promise<any> {
    return super.set(sid, session, callback)
  }
  override touch(sid: string, session: Session & SessionData): Promise<any> {
    return super.touch(sid, session as RedisStoreSession<Session>)
  }
}
export class Profiles extends RedisStore<Profile> {
  override async get(sid: string): Promise<(Profile & SessionData) | null> {
    const found = await super.get(sid)
    return found && { ...found, name: found.name.trim() }
  }
  override set(sid: string, profile: Profile & SessionData, callback?: (error?: any) => void): Promise<any> {
    return super.set(sid, { ...profile, name: profile.name.trim() }, callback)
  }
}
export class Prefixed<Session extends object> extends RedisStore<Session> {
  constructor(options: RedisStoreOptions<RedisStoreSession<Session>>) {
    super({ ...options, prefix: "app:" })
  }
}
export function create<Session extends object>(url: string): RedisStore<Session> {
  return new RedisStore<Session>({ url, ttl: (session) => (session.cookie.expires ? 60 : 3600) })
}
export const named: Promise<string | undefined> = new Typed<Profile>({ url: "" }).get("").then((one) => one?.name)

// @ts-expect-error sessions are objects
export type Wrong = RedisStore<string>
