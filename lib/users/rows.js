"use strict"

/**
 * The requests of src/binding/submission/users.rs: for each operation its rows of key, value and number. `own`
 * is the client's key prefix.
 */
const ROWS = {
  index: (own, { index, handle, ttl, text, limit }) => [
    [own + index, handle, ttl],
    [text, "", limit],
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
  sweep: (own, { index, whole, pending }) => [
    [own + index, "", whole],
    ["", "", pending],
  ],
}

/** The rows of a request, and their size in characters. */
function rowsOf(operation, own, about) {
  const rows = ROWS[operation](own, about)
  let units = 0
  for (const [key, value] of rows) units += key.length + value.length
  return { rows, units }
}

module.exports = { rowsOf }
