// A child process with a store that indexes users: runs the actions that its parent requests.
import { RedisStore } from "../../index.mjs"
import { signIn, userOf } from "./users.mjs"

const store = new RedisStore({ ...JSON.parse(process.argv[2]), userOf })

const ACTIONS = {
  ready: () => store.ping(),
  signIn: (sid, user) => signIn(store, sid, user),
  destroyUser: (user) => store.destroyUser(user),
  close: () => store.close(),
  async signInForEver(user) {
    for (let n = 0; ; n++) await Promise.all([0, 1, 2].map((m) => signIn(store, `s${n}-${m}`, user)))
  },
}

process.on("message", async ({ number, action, args }) => {
  const send = (message) => process.connected && process.send({ number, ...message })
  try {
    const result = await ACTIONS[action](...args)
    send({ result })
    if (action === "close") process.disconnect()
  } catch (error) {
    send({ error: error.message })
  }
})
