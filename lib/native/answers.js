"use strict"

const { RedisStoreError } = require("../errors.js")
const { loadProtocol } = require("./protocol.js")

const ANSWERS_PER_TURN = 512

/**
 * The memory for the rows of answers. It is read completely before any callback runs, because a callback may
 * run the event loop itself.
 */
let rows

/**
 * Moves answers from the native half to `pending`, and each notice to `noticed` as `{ notice, error }`. No code of
 * the application runs meanwhile. Returns the number of answers that are left for another turn of the event loop.
 */
function takeAnswers(native, pending, noticed) {
  const { answerHeader, answerColumns, answers: kinds, errorCodes, notices } = loadProtocol()
  const { part: PART, text: TEXT, ok: OK, count: COUNT, nil: NIL, texts: TEXTS, notice: NOTICE } = kinds
  rows ??= new Float64Array(answerHeader + ANSWERS_PER_TURN * answerColumns)
  // An ended connection writes no header; the memory may still have that of another connection.
  for (let i = 0; i < answerHeader; i++) rows[i] = 0
  const texts = native.drain(rows, pending.count)
  const [count, left] = rows
  let text = 0
  /** The start of the next part of that text. */
  let begin = 0
  for (let i = 0, at = answerHeader; i < count; i++, at += answerColumns) {
    const id = rows[at]
    const kind = rows[at + 1]
    const number = rows[at + 2]
    if (kind === PART) {
      const whole = texts[text]
      const end = begin + number
      pending.answer(id, null, whole.slice(begin, end))
      begin = end
      if (end === whole.length) {
        text++
        begin = 0
      }
    } else if (kind === TEXT) pending.answer(id, null, texts[text++])
    else if (kind === OK) pending.answer(id, null, true)
    else if (kind === COUNT) pending.answer(id, null, number)
    else if (kind === NIL) pending.answer(id, null, null)
    else if (kind === TEXTS) {
      pending.answer(id, null, texts.slice(text, text + number))
      text += number
    } else if (kind === NOTICE) {
      const notice = notices[number]
      if (notice === "failed") {
        noticed.push({ notice, error: errorOf(texts[text], texts, text + 1) })
        text += 4
      } else if (notice === "crashed") noticed.push({ notice, error: crashError(texts[text++]) })
      else noticed.push({ notice, error: undefined })
    } else {
      pending.answer(id, errorOf(errorCodes[number], texts, text), null)
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
    `The native half of the store failed (${place ?? "at an unknown place"}) and was restarted; please report this.`,
  )
}

module.exports = { takeAnswers }
