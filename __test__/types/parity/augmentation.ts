// Declarations by which applications describe their sessions.
import session from "express-session"
import { RedisStore } from "connect-redis"

declare module "express-session" {
  interface SessionData {
    user?: string
    visits?: number
  }
}

export async function use(store: RedisStore): Promise<void> {
  const cookie = new session.Cookie()
  await store.set("sid", { cookie, user: "ada" })
  await store.set("sid", { cookie, user: "ada", visits: 1 })
  const user: string = (await store.get("sid")).user
  const found = await store.get("sid")
  const data = (await store.get("sid")) as session.SessionData | null
  store.get("sid", (error, found) => {
    if (error instanceof Error) throw error
    const visits: number = found.visits + 1
    void visits
  })
  void [user, found.visits, found.undeclared.deeply, data?.visits]
}

export const byFunction = new RedisStore({ client: {} as any, ttl: (data) => (data.user === "ada" ? 60 : 3600) })
