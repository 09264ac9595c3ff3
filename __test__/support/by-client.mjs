import { RedisStore } from "../../index.mjs"
import { contract } from "./contract.mjs"

/** The contract by each of these clients, which is adopted or, if it cannot be, delegated to. */
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

/** What makes the options of a store by a new client of this kind. */
export function adopting(server, kind) {
  return async () => {
    const client = await kind.open(server.url)
    return { options: { client }, close: () => kind.close(client) }
  }
}
