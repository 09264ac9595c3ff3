"use strict"

const { load } = require("../load.js")

let protocol

/** The native binding, and the numbers and names that it shares with JavaScript: src/binding/protocol.rs. */
function loadProtocol() {
  protocol ??= read(load())
  return protocol
}

function read(binding) {
  const said = binding.protocol()
  return {
    binding,
    operations: numbered(said.operations),
    /** What each operation is to Redis, or begins with. */
    commands: Object.fromEntries(said.operations.map((name, number) => [name, said.commands[number]])),
    answers: numbered(said.answers),
    notices: said.notices,
    errorCodes: said.errorCodes,
    requestColumns: said.requestColumns,
    answerHeader: said.answerHeader,
    answerColumns: said.answerColumns,
    countedCommands: said.countedCommands,
    outcomes: said.outcomes,
    latencyBoundsMs: said.latencyBoundsMs,
  }
}

function numbered(names) {
  return Object.fromEntries(names.map((name, number) => [name, number]))
}

module.exports = { loadProtocol }
