import { RedisStore } from "../../index.mjs"
import { contract } from "./contract.mjs"

/** The contract with each of these clients, which the store adopts or delegates to. */
export function contractByClient(server, clients) {
  for (const kind of clients) {
    contract(kind.name, {
      RedisStore,
      source: adopting(server, kind),
      pttl: kind.pttl ?? ((key) => server.client.pTTL(key)),
      native: kind.native ?? true,
    })
  }
}

/** A function that creates the options of a store with a new client of this kind. */
export function adopting(server, kind) {
  return async () => {
    const client = await kind.open(server.url)
    return { options: { client }, close: () => kind.close(client) }
  }
}
