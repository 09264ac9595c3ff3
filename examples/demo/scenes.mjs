// The buttons of the demo: each acts on both apps at once, or on their Redis. A scene returns for each app one
// line with the outcome, and whether it is good.
import { once } from "node:events"
import { setTimeout as delay } from "node:timers/promises"

/** How long Redis is unavailable in a scene: longer than a store's deadline. */
const AWAY_MS = 6000
const LOAD_MS = 5000
const AT_ONCE = 3
/** The store's deadline, and some time for the app. */
const IN_TIME_MS = 2500
/** Ends requests that hang. */
const PATIENCE_MS = 15_000

export const SCENES = {
  load: {
    title: "Load",
    explains: `For ${LOAD_MS / 1000} seconds, 64 at once: the store calls of express-session for each request, a read and a touch.`,
    run: ({ apps }) =>
      each(apps, async (app) => {
        app.process.send({ loadMs: LOAD_MS })
        for (;;) {
          const [{ loaded }] = await once(app.process, "message")
          if (loaded !== undefined) return { good: true, says: `${loaded.toLocaleString("en")} a second.` }
        }
      }),
  },
  cart: {
    title: "Add to cart twice at once",
    explains:
      "Two requests of one session add an item each. express-session saves whole sessions: the second undoes the first.",
    run: ({ apps }) =>
      each(apps, async (app) => {
        const user = await signedIn(app)
        await Promise.all([user("POST", "/cart/book"), user("POST", "/cart/pen")])
        const { cart } = (await user("GET", "/me")).body
        const good = cart?.length === 2
        return {
          good,
          says: good ? "Both items are in the cart." : `One item is lost: the cart holds ${cart?.join(", ")}.`,
        }
      }),
  },
  logout: {
    title: "Log out during a slow request",
    explains: "The slow request saves the session after the logout has destroyed it.",
    run: ({ apps }) =>
      each(apps, async (app) => {
        const user = await signedIn(app)
        const slow = user("GET", "/slow")
        await delay(100)
        await user("POST", "/sign-out")
        await slow
        const { body } = await user("GET", "/me")
        const good = body.user === null
        return {
          good,
          says: good ? "Signed out, and stays signed out." : `Signed in again as ${body.user}: the logout is undone.`,
        }
      }),
  },
  freeze: {
    title: "Freeze Redis",
    explains: `Redis stops answering for ${AWAY_MS / 1000} seconds. Each app gets three requests at once, and a next one.`,
    run: ({ apps, redis: { freeze, thaw } }) =>
      whileAway({ apps, leave: freeze, comeBack: thaw, ms: AWAY_MS, isGood: isInTime }),
  },
  kill: {
    title: "Kill and restart Redis",
    explains: `Redis is killed, and started again with its data after ${AWAY_MS / 1000} seconds.`,
    run: ({ apps, redis: { kill, restart } }) =>
      whileAway({ apps, leave: kill, comeBack: restart, ms: AWAY_MS, isGood: isInTime }),
  },
  primary: {
    title: "Move the primary",
    explains: "For one second, as in a failover, Redis is a read-only replica. Each app signs users in meanwhile.",
    run: ({ apps, redis: { demote, promote } }) =>
      whileAway({
        apps,
        leave: demote,
        comeBack: promote,
        ms: 1000,
        isGood: ({ status }) => status === 200,
        request: ["POST", "/sign-in"],
      }),
  },
}

function isInTime({ ms }) {
  return ms < IN_TIME_MS
}

/** For each app: AT_ONCE requests while Redis is unavailable, then one more, and one when Redis is back. */
async function whileAway({ apps, leave, comeBack, ms, isGood, request: [method, path] = ["GET", "/me"] }) {
  const users = await Promise.all(apps.map(signedIn))
  await leave()
  const asked = users.map(async (user) => {
    const first = await Promise.all(Array.from({ length: AT_ONCE }, () => user(method, path)))
    return [first.toSorted((a, b) => a.ms - b.ms).at(-1), await user(method, path)]
  })
  await delay(ms)
  await comeBack()
  const answers = await Promise.all(asked)
  return Promise.all(
    users.map(async (user, at) => {
      const [first, next] = answers[at]
      const back = await user("GET", "/me")
      const says = `First: ${described(first)}.\nNext: ${described(next)}.\nAfterwards: ${described(back)}.`
      return { good: isGood(first) && back.status === 200, says }
    }),
  )
}

function described({ status, body, ms }) {
  const took = ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
  return status === 200 ? `answered in ${took}` : `${body.error ?? status} after ${took}`
}

async function each(apps, scene) {
  return Promise.all(
    apps.map((app) => scene(app).catch((error) => ({ good: false, says: `Failed: ${error.message}.` }))),
  )
}

/** A client with cookies, signed in to `app`: a function that makes one request. */
async function signedIn(app) {
  let cookie
  const user = async (method, path) => {
    const startedAt = performance.now()
    const signal = AbortSignal.timeout(PATIENCE_MS)
    const headers = cookie === undefined ? {} : { cookie }
    try {
      const response = await fetch(app.url + path, { method, headers, signal })
      cookie = response.headers.getSetCookie()[0]?.split(";")[0] ?? cookie
      return { status: response.status, body: await response.json(), ms: performance.now() - startedAt }
    } catch (error) {
      const why = error.name === "TimeoutError" ? "no answer, given up" : (error.cause?.code ?? error.message)
      return { status: 0, body: { error: why }, ms: performance.now() - startedAt }
    }
  }
  await user("POST", "/sign-in")
  return user
}
