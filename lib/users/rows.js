"use strict"

/**
 * The requests of src/binding/submission/users.rs: for each operation its rows of key, value and number. `own` is
 * what the client puts before keys.
 */
const ROWS = {
  index: (own, { index, handle, ttl, text, limit }) => [
    [own + index, handle, ttl],
    [text, "", limit],
  ],
  signIn: (own, { index, handle, ttl, text, limit, key, prefix, value, ignoresMarkers, byTurns }) => [
    [own + key, value, ttl],
    [own + index, handle, limit],
    [text, own + prefix, (ignoresMarkers ? 1 : 0) + (byTurns ? 2 : 0)],
  ],
  entries: (own, { index, handle }) => [[own + index, handle ?? "", 0]],
  revoke: (own, { index, prefix, items }) => [
    [own + index, own + prefix, items.length],
    ...items.flatMap(({ key, handle, entry }) => [
      [own + key, handle, 0],
      [entry, "", 0],
    ]),
  ],
  remove: (own, { index, items }) => [
    [own + index, "", items.length],
    ...items.map(({ handle, entry }) => [handle, entry, 0]),
  ],
  renew: (own, { index, handle, entry, renewed }) => [
    [own + index, handle, 0],
    [entry, renewed, 0],
  ],
  sweep: (own, { index, wholeMs, otherMs }) => [
    [own + index, "", wholeMs],
    ["", "", otherMs],
  ],
}

/** The rows of a request, and how many characters they are. */
function rowsOf(operation, own, about) {
  const rows = ROWS[operation](own, about)
  let units = 0
  for (const [key, value] of rows) units += key.length + value.length
  return { rows, units }
}

module.exports = { rowsOf }
