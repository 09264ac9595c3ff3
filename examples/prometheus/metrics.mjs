/**
 * The metrics of a store in Prometheus's text format, 0.0.4:
 * https://prometheus.io/docs/instrumenting/exposition_formats/.
 */
export function metrics(store) {
  const { commands, latency, pending, batches, reconnects, bytesSent, bytesReceived } = store.stats()
  const lines = []
  const family = (name, type, help, samples) => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`)
    for (const [labels, value] of samples) lines.push(`${name}${labels} ${value}`)
  }

  const outcomes = Object.entries(commands).flatMap(([command, counts]) =>
    Object.entries(counts).map(([outcome, count]) => [`{command="${command}",outcome="${outcome}"}`, count]),
  )
  family("redis_store_commands_total", "counter", "Commands by outcome.", outcomes)

  let count = 0
  const buckets = latency.counts.map((more, at) => {
    const bound = at < latency.boundsMs.length ? latency.boundsMs[at] / 1000 : "+Inf"
    return [`_bucket{le="${bound}"}`, (count += more)]
  })
  family("redis_store_command_duration_seconds", "histogram", "From call to answer.", [
    ...buckets,
    ["_sum", latency.sumMs / 1000],
    ["_count", count],
  ])

  family("redis_store_pending_requests", "gauge", "Requests that wait for an answer.", [["", pending]])
  family("redis_store_batches_total", "counter", "Batches passed to the native code.", [["", batches]])
  family("redis_store_reconnects_total", "counter", "Connections that replaced an earlier one.", [["", reconnects]])
  family("redis_store_sent_bytes_total", "counter", "Bytes sent to Redis.", [["", bytesSent]])
  family("redis_store_received_bytes_total", "counter", "Bytes received from Redis.", [["", bytesReceived]])
  return `${lines.join("\n")}\n`
}
