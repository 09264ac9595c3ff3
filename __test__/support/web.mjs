import { createServer } from "node:http"

/** Serves `handler`, an app or any function of request and response, on a free loopback port. */
export async function serve(handler) {
  const listener = createServer(handler)
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve))
  return {
    listener,
    url: `http://127.0.0.1:${listener.address().port}`,
    close: async () => {
      listener.closeAllConnections()
      await new Promise((resolve) => listener.close(resolve))
    },
  }
}

/**
 * A client of `url` that keeps its cookies. `go` resolves to the properties of the JSON answer, the status and
 * the set cookie.
 */
export function browser(url) {
  const cookies = new Map()
  const own = {
    url,
    cookies,
    get cookie() {
      return Array.from(cookies, ([name, value]) => `${name}=${value}`).join("; ")
    },
    async go(path, { method, headers, json } = {}) {
      const sent = json && { body: JSON.stringify(json) }
      const type = json && { "content-type": "application/json" }
      const cookie = cookies.size > 0 && { cookie: own.cookie }
      const response = await fetch(url + path, { method, headers: { ...type, ...cookie, ...headers }, ...sent })
      for (const cookie of response.headers.getSetCookie()) {
        const [name, value] = cookie.split(";")[0].split(/=(.*)/s)
        cookies.set(name, value)
      }
      const text = await response.text()
      return {
        status: response.status,
        set: response.headers.get("set-cookie"),
        ...(text.startsWith("{") && JSON.parse(text)),
      }
    },
  }
  return own
}
