import { createServer } from "node:net"

/**
 * A server with Redis's protocol, for replies that a real server cannot be made to send. `answer(words,
 * connection, socket)` returns the raw reply to a command; `connection` counts from 1. PING gets Redis's reply.
 */
export async function startFakeServer(answer) {
  const sockets = new Set()
  let connections = 0
  const server = createServer({ noDelay: true }, (socket) => {
    const connection = ++connections
    sockets.add(socket.on("error", () => {}))
    let text = ""
    socket.on("data", (data) => {
      text += data
      for (let command = take(); command; command = take()) {
        socket.write(command[0] === "PING" ? "+PONG\r\n" : answer(command, connection, socket))
      }
    })
    function take() {
      const count = Number(/^\*(\d+)\r\n/.exec(text)?.[1])
      const words = new RegExp(`^\\*${count}\\r\\n(?:\\$\\d+\\r\\n[^\\r]*\\r\\n){${count}}`).exec(text)?.[0]
      if (words === undefined) return undefined
      text = text.slice(words.length)
      return words.split("\r\n").filter((_, at) => at > 0 && at % 2 === 0)
    }
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    url: `redis://127.0.0.1:${server.address().port}`,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}
