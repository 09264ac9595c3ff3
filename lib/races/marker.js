"use strict"

const { now } = require("../timers.js")

/**
 * Markers as in src/marker.rs, for stores that delegate, since the binding may be missing. A test compares
 * both.
 */
const MARKER_LIFE_MS = 60_000

const RESTORE_SCRIPT =
  "local function newest() local most = -1 for i = 2, #KEYS do " +
  "local left = redis.call('PTTL', KEYS[i]) if left == -1 then left = tonumber(ARGV[5]) end " +
  "most = math.max(most, left) end return most end local function clock() " +
  "local time = redis.pcall('TIME') " +
  "return time[1] and time[1] * 1000 + math.floor(time[2] / 1000) or 0 end if newest() >= 0 then " +
  "if redis.replicate_commands then redis.replicate_commands() end " +
  "local now, left repeat now, left = clock(), newest() until clock() == now " +
  "if left >= 0 and now + left > tonumber(ARGV[4]) then return {left, now + left} end end " +
  "if ARGV[3] == 'ASK' then return redis.status_reply('OK') end " +
  "if ARGV[3] == 'ADD' then local now = redis.call('GET', KEYS[1]) if now then return now end end " +
  "if ARGV[2] == '' then return redis.call('SET', KEYS[1], ARGV[1]) end " +
  "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"

/** No marker is ignored. */
const NONE_KNOWN = -1

/** When a marker expires, by the clock of the server, if it was written before `at`; `[left, end]` has just come. */
function endIfBefore(at, [left, end]) {
  // An upper bound, because the reply took some time.
  const writtenAt = now() - (MARKER_LIFE_MS - Number(left)) + 1
  return writtenAt < at ? Number(end) : undefined
}

/** The end of a marker without a prefix, so that ids in braces, such as GUIDs, are not taken for markers. */
const UNPREFIXED = "}:destroyed"

/** The marker of `key`; the marker of a prefix is for all its keys. `own` is the client's own key prefix. */
function markerOf(prefix, key, own = "") {
  const end = own + prefix === "" ? UNPREFIXED : "}"
  return `${prefix}{${own}${key}${end}`
}

/** Whether `key`, which starts with `prefix`, is a marker of this prefix or of a longer one. */
function isMarker(prefix, key) {
  if (prefix === "" && key.startsWith("{") && key.endsWith(UNPREFIXED)) return true
  if (!key.endsWith("}")) return false
  const marked = key.slice(0, -1)
  for (let at = marked.indexOf("{", Math.max(prefix.length, 1)); at !== -1; at = marked.indexOf("{", at + 1)) {
    if (marked.startsWith(marked.slice(0, at), at + 1)) return true
  }
  return false
}

module.exports = { MARKER_LIFE_MS, NONE_KNOWN, RESTORE_SCRIPT, endIfBefore, isMarker, markerOf }
