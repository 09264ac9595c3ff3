// On a terminal one line rewritten in place; elsewhere, such as in a CI log, one line for each workload.
export class Progress {
  #total
  #steps = 0
  #startedAt = Date.now()

  constructor(total) {
    this.#total = total
  }

  step(what) {
    this.#steps++
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${this.#count()} ${what}`)
  }

  done(what) {
    if (process.stderr.isTTY) {
      if (this.#steps === this.#total) process.stderr.write("\r\x1b[K")
    } else {
      process.stderr.write(
        `${this.#count()} ${what} done after ${Math.round((Date.now() - this.#startedAt) / 1000)} s\n`,
      )
    }
  }

  #count() {
    return `[${this.#steps}/${this.#total}]`
  }
}
