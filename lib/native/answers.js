"use strict"

const { RedisStoreError } = require("../errors.js")
const { loadProtocol } = require("./protocol.js")

const ANSWERS_PER_TURN = 512

/** The memory in which answers are handed over. Nothing stays in it: a callback may run the event loop itself. */
let rows

/**
 * Takes answers out of the native half, which waits for `pending` more: calls `answered(id, error, reply)`
 * and `noticed(notice, error)` for each, in order. Neither runs code of the application. Returns how many
 * are left for another turn of the event loop.
 */
function takeAnswers(native, pending, answered, noticed) {
  const { answerHeader, answerColumns, answers: kinds, errorCodes, notices } = loadProtocol()
  rows ??= new Float64Array(answerHeader + ANSWERS_PER_TURN * answerColumns)
  const texts = native.drain(rows, pending)
  const [count, left] = rows
  let text = 0
  for (let i = 0, at = answerHeader; i < count; i++, at += answerColumns) {
    const id = rows[at]
    const kind = rows[at + 1]
    const number = rows[at + 2]
    if (kind === kinds.text) answered(id, null, texts[text++])
    else if (kind === kinds.ok) answered(id, null, true)
    else if (kind === kinds.count) answered(id, null, number)
    else if (kind === kinds.nil) answered(id, null, null)
    else if (kind === kinds.texts) {
      answered(id, null, texts.slice(text, text + number))
      text += number
    } else if (kind === kinds.notice) {
      const notice = notices[number]
      if (notice === "failed") {
        noticed(notice, errorOf(texts[text], texts, text + 1))
        text += 4
      } else if (notice === "crashed") noticed(notice, crashError(texts[text++]))
      else noticed(notice, undefined)
    } else {
      answered(id, errorOf(errorCodes[number], texts, text), null)
      text += 3
    }
  }
  return left
}

function errorOf(code, texts, at) {
  const message = texts[at]
  const cause = texts[at + 1]
  const causeCode = texts[at + 2]
  if (cause == null) return new RedisStoreError(code, message)
  return new RedisStoreError(code, message, Object.assign(new Error(cause), causeCode != null && { code: causeCode }))
}

function crashError(place) {
  return new RedisStoreError(
    "ERR_REDIS_STORE_CONNECT",
    `The native half of the store failed (${place ?? "at an unknown place"}) and is started anew; please report this.`,
  )
}

module.exports = { takeAnswers }
