import { tracingChannel } from "node:diagnostics_channel"

import { SpanKind, SpanStatusCode, trace } from "@opentelemetry/api"

/**
 * Creates a client span for every command of every store, by the semantic conventions for Redis:
 * https://opentelemetry.io/docs/specs/semconv/database/redis/. Returns a function that stops it.
 */
export function traceRedisStore(tracer = trace.getTracer("connect-redis-native")) {
  const spans = new WeakMap()
  const channel = tracingChannel("connect-redis-native:command")
  const subscribers = {
    /** Runs in the caller's context: the active span there is the parent. */
    start(message) {
      const operation = message.command.toUpperCase()
      const attributes = { "db.system.name": "redis", "db.operation.name": operation }
      spans.set(message, tracer.startSpan(operation, { kind: SpanKind.CLIENT, attributes }))
    },
    /** Runs before the caller's callback, which is not part of the command. */
    asyncStart(message) {
      const { server, outcome, error } = message
      const span = spans.get(message)
      if (span === undefined) return
      if (server !== undefined) {
        span.updateName(`${message.command.toUpperCase()} ${server.database}`)
        span.setAttribute("db.namespace", String(server.database))
        span.setAttribute("server.address", server.path ?? server.host)
        if (server.port !== undefined) span.setAttribute("server.port", server.port)
      }
      if (error !== undefined) {
        span.setAttribute("error.type", outcome)
        span.setStatus({ code: SpanStatusCode.ERROR, message: error.message })
      }
      span.end()
    },
  }
  channel.subscribe(subscribers)
  return () => channel.unsubscribe(subscribers)
}
