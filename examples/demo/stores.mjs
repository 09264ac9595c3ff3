/** The two stores that the demo compares: their names, and how to open them as documented. */
export const STORES = {
  "connect-redis": {
    title: "connect-redis 10",
    open: async (url) => {
      const [{ RedisStore }, { createClient }] = [await import("connect-redis"), await import("redis")]
      const client = createClient({ url }).on("error", () => {})
      await client.connect()
      return new RedisStore({ client, prefix: "demo-original:" })
    },
  },
  native: {
    title: "connect-redis-native",
    open: async (url) => {
      const { RedisStore } = await import("../../index.mjs")
      return new RedisStore({ url, prefix: "demo-native:", onConflict: "merge" })
    },
  },
}
