"use strict"

const loader = require("./load.js")

let protocol

/** The native binding, and the numbers and names that it shares with JavaScript: src/binding/protocol.rs. */
function loadProtocol() {
  protocol ??= read(loader.load())
  return protocol
}

function read(binding) {
  const said = binding.protocol()
  return {
    ...said,
    binding,
    operations: numbered(said.operations),
    /** What each operation is to Redis, or begins with. */
    commands: Object.fromEntries(said.operations.map((name, number) => [name, said.commands[number]])),
    answers: numbered(said.answers),
  }
}

function numbered(names) {
  return Object.fromEntries(names.map((name, number) => [name, number]))
}

module.exports = { loadProtocol }
