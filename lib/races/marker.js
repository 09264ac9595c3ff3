"use strict"

/**
 * Markers, as src/marker.rs has them: for stores that delegate, which may have no binding to ask. A test
 * holds them to the binding's.
 */
const MARKER_LIFE_MS = 60_000

const RESTORE_SCRIPT =
  "local known = tonumber(ARGV[4]) local newest = known for i = 2, #KEYS do " +
  "local left = redis.call('PTTL', KEYS[i]) if left == -1 then left = tonumber(ARGV[5]) end " +
  "if left > newest then newest = left end end if newest > known then return newest end " +
  "if ARGV[3] == 'ADD' then local now = redis.call('GET', KEYS[1]) if now then return now end end " +
  "if ARGV[2] == '' then return redis.call('SET', KEYS[1], ARGV[1]) end " +
  "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"

/** The end of a marker without a prefix: ids in braces, as GUIDs may be, are no markers. */
const UNPREFIXED = "}:destroyed"

/** The marker of `key`; that of a prefix is for all its keys. `own` is what the client puts before keys. */
function markerOf(prefix, key, own = "") {
  const end = own + prefix === "" ? UNPREFIXED : "}"
  return `${prefix}{${own}${key}${end}`
}

/** Whether `key`, which starts with `prefix`, is a marker; be it of a longer prefix. */
function isMarker(prefix, key) {
  if (prefix === "" && key.startsWith("{") && key.endsWith(UNPREFIXED)) return true
  if (!key.endsWith("}")) return false
  const marked = key.slice(0, -1)
  for (let at = marked.indexOf("{", Math.max(prefix.length, 1)); at !== -1; at = marked.indexOf("{", at + 1)) {
    if (marked.startsWith(marked.slice(0, at), at + 1)) return true
  }
  return false
}

module.exports = { MARKER_LIFE_MS, RESTORE_SCRIPT, isMarker, markerOf }
