"use strict"

/** The requests of one batch, in the shape that src/binding/submission.rs describes. */
class Outbox {
  /** The number of requests; a request may take several rows. */
  count = 0
  #columns
  #rows
  #used = 0
  #text = ""

  constructor(columns) {
    this.#columns = columns
    this.#rows = new Float64Array(64 * columns)
  }

  /** UTF-16 code units of text. */
  get units() {
    return this.#text.length
  }

  /** Adds a request. */
  add(id, operation, key, value, number) {
    this.row(id, operation, key, value, number)
    this.count++
  }

  /** Adds a row, the first of a request or another one. */
  row(id, operation, key, value, number) {
    this.#put(id, operation, key.length, value.length, number)
    this.#text += key
    if (value !== "") this.#text += value
  }

  /** Adds another row of a request: `text` is its key, of `units`, and its value. */
  joined(text, units, number) {
    this.#put(0, 0, units, text.length - units, number)
    this.#text += text
  }

  #put(id, operation, keyUnits, valueUnits, number) {
    if (this.#used === this.#rows.length) {
      const larger = new Float64Array(this.#rows.length * 2)
      larger.set(this.#rows)
      this.#rows = larger
    }
    const rows = this.#rows
    const at = this.#used
    rows[at] = id
    rows[at + 1] = operation
    rows[at + 2] = keyUnits
    rows[at + 3] = valueUnits
    rows[at + 4] = number
    this.#used = at + this.#columns
  }

  /** Passes everything to the native half. */
  submit(store) {
    const count = this.count
    const used = this.#used
    const text = this.#text
    this.clear()
    store.submit(count, used, this.#rows, text)
  }

  clear() {
    this.count = 0
    this.#used = 0
    this.#text = ""
  }
}

module.exports = { Outbox }
