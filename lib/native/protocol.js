"use strict"

const { OPERATIONS } = require("../operations.js")
const loader = require("./load.js")

let protocol

/** The native binding, and the numbers and names that Rust and JavaScript share: src/binding/protocol.rs. */
function loadProtocol() {
  protocol ??= read(loader.load())
  return protocol
}

function read(binding) {
  const said = binding.protocol()
  for (const [number, name] of said.operations.entries()) {
    Object.assign(OPERATIONS[name], { number, command: said.commands[number] })
  }
  return {
    ...said,
    binding,
    answers: numbered(said.answers),
  }
}

function numbered(names) {
  return Object.fromEntries(names.map((name, number) => [name, number]))
}

module.exports = { loadProtocol }
