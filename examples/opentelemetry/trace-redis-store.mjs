import { tracingChannel } from "node:diagnostics_channel"

import { SpanKind, SpanStatusCode, trace } from "@opentelemetry/api"

/**
 * Makes a client span of every command of every store, as the semantic conventions for Redis say:
 * https://opentelemetry.io/docs/specs/semconv/database/redis/. Returns what stops it.
 */
export function traceRedisStore(tracer = trace.getTracer("connect-redis-native")) {
  const spans = new WeakMap()
  const channel = tracingChannel("connect-redis-native:command")
  const subscribers = {
    /** Runs where the command is asked for: what span is active there is the parent. */
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
