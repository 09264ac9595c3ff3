// Every client that applications pass to a store, with its own types.
import { GlideClient, GlideClusterClient } from "@valkey/valkey-glide"
import { Redis as Upstash } from "@upstash/redis"
import Redis, { Cluster } from "ioredis"
import Redis5, { Cluster as Cluster5 } from "ioredis-5"
import RedisMock from "ioredis-mock"
import Valkey, { Cluster as ValkeyCluster } from "iovalkey"
import { type RedisClientType, createClient, createClientPool, createCluster, createSentinel } from "redis"
import * as redis4 from "redis-4"
import * as redis5 from "redis-5"
import { RedisStore } from "connect-redis"

declare const glide: GlideClient
declare const glideCluster: GlideClusterClient

const client = createClient({ url: "redis://localhost" })
export const typed: RedisClientType = createClient() as RedisClientType
export const stores = [
  new RedisStore({ client }),
  new RedisStore({ client: client as any }),
  new RedisStore({ client: typed }),
  new RedisStore({ client: client.duplicate() }),
  new RedisStore({ client: client.legacy() }),
  new RedisStore({ client: createClient({ RESP: 2 }) }),
  new RedisStore({ client: createClientPool() }),
  new RedisStore({ client: createCluster({ rootNodes: [{ url: "redis://localhost" }] }) }),
  new RedisStore({ client: createSentinel({ name: "mymaster", sentinelRootNodes: [] }) }),
  new RedisStore({ client: redis5.createClient() }),
  new RedisStore({ client: redis5.createClient().legacy() }),
  new RedisStore({ client: redis5.createClientPool() }),
  new RedisStore({ client: redis5.createCluster({ rootNodes: [] }) }),
  new RedisStore({ client: redis5.createSentinel({ name: "mymaster", sentinelRootNodes: [] }) }),
  new RedisStore({ client: redis4.createClient() }),
  new RedisStore({ client: redis4.createClient({ legacyMode: true }) }),
  new RedisStore({ client: redis4.createCluster({ rootNodes: [] }) }),
  new RedisStore({ client: new Redis() }),
  new RedisStore({ client: new Cluster([]) }),
  new RedisStore({ client: new Redis5() }),
  new RedisStore({ client: new Cluster5([]) }),
  new RedisStore({ client: new RedisMock() }),
  new RedisStore({ client: new Valkey() }),
  new RedisStore({ client: new ValkeyCluster([]) }),
  new RedisStore({ client: new Upstash({ url: "https://localhost", token: "token" }) }),
  new RedisStore({ client: glide }),
  new RedisStore({ client: glideCluster }),
]

/** A wrapper with the methods that connect-redis 10 calls. */
class Instrumented {
  async get(key: string): Promise<string | null> {
    return key
  }
  async set(key: string, value: string, options?: { expiration: { type: "EX"; value: number } }): Promise<string> {
    return key + value + options?.expiration.value
  }
  async expire(key: string, seconds: number): Promise<number> {
    return key.length + seconds
  }
  async del(keys: string[]): Promise<number> {
    return keys.length
  }
  async mGet(keys: string[]): Promise<(string | null)[]> {
    return keys
  }
  async *scanIterator(options: { MATCH: string; COUNT: number }): AsyncGenerator<string[]> {
    yield [options.MATCH]
  }
}

interface OwnClient {
  get(key: string): Promise<string | null>
  set(key: string, value: string): Promise<unknown>
  del(key: string): Promise<number>
}
declare const own: OwnClient
declare const none: RedisClientType | undefined

declare const something: object
export const wrapped = [
  new RedisStore({ client: new Instrumented() }),
  new RedisStore({ client: own }),
  new RedisStore({ client: none }),
  new RedisStore({ client: something }),
  new RedisStore({ client: {} }),
  new RedisStore({ client: null }),
]
export function generic<Client extends RedisClientType>(given: Client): RedisStore {
  return new RedisStore({ client: given })
}
export const held: RedisClientType = stores[0]!.client as RedisClientType
