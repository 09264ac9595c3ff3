// Writes one line of JSON for every test to the file HOST_SUITE_RESULTS, for any version of mocha.
"use strict"

const { appendFileSync } = require("node:fs")

module.exports = function report(runner) {
  const write = (test, passed, error) => {
    const line = { name: test.fullTitle(), passed, ...(error && { error: String(error.stack ?? error) }) }
    appendFileSync(process.env.HOST_SUITE_RESULTS, `${JSON.stringify(line)}\n`)
  }
  runner.on("pass", (test) => write(test, true))
  runner.on("fail", (test, error) => write(test, false, error))
}
