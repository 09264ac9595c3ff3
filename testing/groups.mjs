/**
 * Every group of tests: its name, what it covers, and the topics of its files. `tier` "quick" is `npm test`, "all" is
 * `npm run test:all`. `limitSeconds` is for each test, not for a file: large where a test installs something from a registry.
 */
export const GROUPS = [
  {
    name: "engine",
    tier: "quick",
    covers: "the engine without Node: cargo test",
    command: ["cargo", "test", "--quiet"],
  },
  {
    name: "contract",
    tier: "quick",
    covers: "every method, by url, redis 6 and ioredis 6, native and delegated",
    topics: ["contract", "delegation"],
  },
  { name: "options", tier: "quick", covers: "every option and its wrong values", topics: ["options"] },
  { name: "bugs", tier: "quick", covers: "connect-redis's bugs that are not copied", topics: ["bugs"] },
  {
    name: "connection",
    tier: "quick",
    covers: "connecting, limits, errors, the circuit, retries, secrets",
    topics: ["connection", "limits", "errors", "circuit", "retries", "secrets"],
  },
  {
    name: "context",
    tier: "quick",
    covers: "AsyncLocalStorage, callbacks that throw, worker threads",
    topics: ["context", "workers"],
  },
  {
    name: "races",
    tier: "quick",
    covers: "a logout stays a logout, conflicts, lifetimes",
    topics: ["races", "lifetimes"],
  },
  { name: "express", tier: "quick", covers: "an Express app by HTTP", topics: ["express"] },
  { name: "docs", tier: "quick", covers: "every code block of README and docs", topics: ["readme", "docs"] },
  {
    name: "types",
    tier: "quick",
    covers: "index.d.ts in TypeScript 5.9 and 7",
    command: [process.execPath, "scripts/check-types.mjs"],
  },
  {
    name: "clients",
    tier: "all",
    covers: "every other client, native and delegated",
    topics: ["clients", "delegated-clients"],
  },
  {
    name: "topologies",
    tier: "all",
    covers: "cluster, sentinel, TLS, unix socket, by every client",
    topics: ["topologies"],
  },
  { name: "failover", tier: "all", covers: "failovers of sentinel and cluster under load", topics: ["failover"] },
  { name: "faults", tier: "all", covers: "every fault under load, long", topics: ["faults"] },
  {
    name: "properties",
    tier: "all",
    covers: "generated sessions and interleavings, long",
    topics: ["properties", "model"],
  },
  {
    name: "observability",
    tier: "all",
    covers: "stats, ping, diagnostics channels",
    topics: ["observability"],
  },
  {
    name: "neighbours",
    tier: "all",
    covers: "the apps of examples/, connect, csrf-sync, subclasses, no express-session",
    topics: ["neighbours", "examples", "without-express-session"],
  },
  { name: "demo", tier: "all", covers: "the demo's page in Chromium", topics: ["demo"], limitSeconds: 120 },
  { name: "upstream", tier: "all", covers: "the own tests of connect-redis 4 to 10", topics: ["upstream"] },
  { name: "valkey", tier: "all", covers: "servers whose SET compares", topics: ["valkey"] },
  {
    name: "release",
    tier: "all",
    covers: "packing, publishing, the workflows' scripts",
    topics: ["release"],
    limitSeconds: 300,
  },
  {
    name: "install",
    tier: "all",
    covers: "the tarballs by npm, pnpm, yarn and bundlers",
    topics: ["install"],
    limitSeconds: 300,
  },
  {
    name: "loader",
    tier: "all",
    covers: "the error when no binary loads, and its remedies",
    topics: ["loader"],
    limitSeconds: 600,
  },
  {
    name: "runtimes",
    tier: "all",
    covers: "the contract on Node 20 to 26, Bun and Deno",
    topics: ["runtimes"],
    limitSeconds: 300,
  },
]
