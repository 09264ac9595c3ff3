// The demo: one page with two columns, connect-redis 10 and this package, each a real Express app in a process of its
// own, over one Redis that the demo owns.
import { fork } from "node:child_process"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

import { ownRedis } from "./redis.mjs"
import { SCENES } from "./scenes.mjs"
import { STORES } from "./stores.mjs"

const here = (name) => fileURLToPath(new URL(name, import.meta.url))

/** Starts Redis, both apps and the page on `port` of localhost. Resolves to `{ url, redis, close }`. */
export async function startDemo({ port }) {
  const redis = await ownRedis()
  const apps = await Promise.all(Object.keys(STORES).map((name) => startApp(name, redis.url)))
  const listeners = new Set()
  let running
  const tell = (event) => {
    for (const response of listeners) response.write(`data: ${JSON.stringify(event)}\n\n`)
  }
  for (const app of apps) {
    app.process.on("message", ({ figures }) => figures && tell({ app: app.name, figures }))
  }

  async function play(name) {
    // One scene at a time: they share the Redis.
    if (running !== undefined) return { busy: running }
    running = name
    tell({ scene: name })
    try {
      const outcomes = await SCENES[name].run({ apps, redis })
      return { outcomes: Object.fromEntries(apps.map((app, at) => [app.name, outcomes[at]])) }
    } finally {
      running = undefined
      tell({ scene: null })
    }
  }

  const page = () =>
    readFileSync(here("page.html"), "utf8").replace("{{config}}", () =>
      JSON.stringify({
        redis: redis.description,
        apps: apps.map(({ name }) => ({ name, title: STORES[name].title })),
        scenes: Object.entries(SCENES).map(([name, { title, explains }]) => ({ name, title, explains })),
      }).replaceAll("<", "\\u003c"),
    )

  const server = createServer(async (request, response) => {
    const [, scene] = /^\/play\/(\w+)$/.exec(request.url) ?? []
    if (request.url === "/") {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page())
    } else if (request.url === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
      response.write("\n")
      listeners.add(response)
      response.on("close", () => listeners.delete(response))
    } else if (request.method === "POST" && Object.hasOwn(SCENES, scene ?? "")) {
      const result = await play(scene).catch((error) => ({ error: error.message }))
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(result))
    } else {
      response.writeHead(404).end()
    }
  })
  const close = async () => {
    server.closeAllConnections()
    server.close()
    for (const app of apps) app.process.kill()
    await redis.stop()
  }
  try {
    await new Promise((resolve, reject) => server.once("error", reject).listen(port, "localhost", resolve))
  } catch (error) {
    await close()
    throw error
  }
  return { url: `http://localhost:${server.address().port}/`, redis, close }
}

/** An app in a process of its own: `{ name, url, process }`, once it listens. */
function startApp(name, redisUrl) {
  const child = fork(here("app.mjs"), { env: { ...process.env, STORE: name, REDIS_URL: redisUrl } })
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`The app with ${name} ended with exit code ${code}.`)))
    child.on("message", ({ port }) => {
      if (port !== undefined) resolve({ name, url: `http://127.0.0.1:${port}`, process: child })
    })
  })
}
