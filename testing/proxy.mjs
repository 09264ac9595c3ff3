import { createConnection, createServer } from "node:net"

/**
 * A TCP proxy in front of `port` that injects network faults.
 *
 * `hold()` holds all data in both directions, also of new connections, until `release()` passes it on.
 * `reset()` resets every connection. `halve()` closes the server's side of every connection without closing the
 * client's. The function `replies`, if set, receives every piece of a reply and returns the pieces to send to
 * the client instead, each a Buffer or RESET; a promise of them delays them.
 */
export async function startProxy(port) {
  const links = new Set()
  const proxy = { replies: undefined, held: false, connections: 0 }
  const server = createServer({ noDelay: true }, (client) => {
    const link = { client, upstream: createConnection({ port, host: "127.0.0.1", noDelay: true }), waiting: [] }
    links.add(link)
    proxy.connections++
    const end = () => {
      if (proxy.held) return link.waiting.push(end)
      links.delete(link)
      client.destroy()
      link.upstream.destroy()
    }
    for (const side of [client, link.upstream]) side.on("error", () => {}).on("close", () => link.halved || end())
    const pass = (act) => (proxy.held ? link.waiting.push(act) : act())
    client.on("data", (data) => pass(() => link.upstream.write(data)))
    let turn
    link.upstream.on("data", (data) => {
      const { replies = whole } = proxy
      // Later pieces must not overtake a delayed one.
      if (turn === undefined && replies === whole) return pass(() => client.write(data))
      const pieces = Promise.resolve(replies(data, link))
      turn = Promise.all([pieces, turn]).then(([some]) => {
        for (const piece of some) {
          if (piece === RESET) client.resetAndDestroy()
          else pass(() => client.write(piece))
        }
      })
    })
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return Object.assign(proxy, {
    port: server.address().port,
    url: `redis://127.0.0.1:${server.address().port}`,
    hold: () => {
      proxy.held = true
    },
    release: () => {
      proxy.held = false
      for (const { waiting } of links) for (const act of waiting.splice(0)) act()
    },
    reset: () => {
      for (const { client } of links) client.resetAndDestroy()
    },
    halve: () => {
      for (const link of links) {
        link.halved = true
        link.upstream.destroy()
      }
    },
    stop: () => {
      server.close()
      for (const { client, upstream } of links) {
        client.destroy()
        upstream.destroy()
      }
    },
  })
}

const whole = (data) => [data]

/** Stands for a reset of the connection in place of a piece. */
export const RESET = Symbol("reset")
