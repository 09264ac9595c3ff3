import { createServer } from "node:http"

import { createClient } from "redis"

/** A Redis behind HTTP, as Upstash serves it: a command, or a list of them, as JSON by POST. */
export async function startRestStub(url) {
  const client = await createClient({ url, RESP: 2 })
    .on("error", () => {})
    .connect()
  const run = async (command) => {
    try {
      return { result: await client.sendCommand(command.map(String)) }
    } catch (error) {
      return { error: error.message }
    }
  }
  const server = createServer(async (request, response) => {
    let text = ""
    for await (const data of request) text += data
    const body = JSON.parse(text)
    const answer = /pipeline|multi-exec/.test(request.url) ? await Promise.all(body.map(run)) : await run(body)
    const encoded = /base64/.test(request.headers["upstash-encoding"] ?? "")
    response.end(JSON.stringify(encoded ? base64(answer) : answer))
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => {
      server.closeAllConnections()
      server.close()
      client.destroy()
    },
  }
}

/** Upstash encodes every text of a result but "OK". */
function base64(answer) {
  if (Array.isArray(answer)) return answer.map(base64)
  const encode = (value) => {
    if (Array.isArray(value)) return value.map(encode)
    return typeof value === "string" && value !== "OK" ? Buffer.from(value).toString("base64") : value
  }
  return "result" in answer ? { result: encode(answer.result) } : answer
}
