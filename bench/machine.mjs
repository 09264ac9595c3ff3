import os from "node:os"

import * as redis from "redis"

import { makeRedisClient } from "./stores.mjs"

// `redisInfo` is the reply to INFO server.
export function describeMachine(redisInfo) {
  const cpus = os.cpus()
  return {
    date: new Date().toISOString(),
    machine: `${cpus[0]?.model ?? os.arch()}, ${cpus.length} cores, ${os.platform()} ${os.arch()}`,
    node: process.version,
    redis: redisInfo.match(/^(?:valkey|redis)_version:(\S+)/m)?.[1] ?? "unknown",
  }
}

export async function serverInfo(url, ca) {
  const client = await makeRedisClient(redis, [url], ca).connect()
  try {
    return await client.info("server")
  } finally {
    client.destroy()
  }
}
