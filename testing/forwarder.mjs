import { createConnection, createServer } from "node:net"

/**
 * A TCP forwarder to `port`, like the endpoint of a managed service. `move(port)` sends new connections to
 * another port; open ones stay. `admits(socket)` may refuse one, as a Redis with too many clients does.
 */
export async function startForwarder(port, { admits = () => true } = {}) {
  const sockets = new Set()
  const forwarder = { connections: 0 }
  const server = createServer({ noDelay: true }, async (client) => {
    forwarder.connections++
    client.on("error", () => {})
    if (!(await admits(client))) return client.end("-ERR max number of clients reached\r\n")
    const upstream = createConnection({ port, host: "127.0.0.1", noDelay: true })
    const end = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on("error", end).on("close", end)
    }
    client.pipe(upstream)
    upstream.pipe(client)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return Object.assign(forwarder, {
    port: server.address().port,
    move: (to) => {
      port = to
    },
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  })
}
