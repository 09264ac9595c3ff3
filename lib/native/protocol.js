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
    operations: operationsOf(said),
    answers: numbered(said.answers),
  }
}

/**
 * By name, the number of each operation and the command that it is or begins with. Every request looks one up:
 * a Map finds it fastest if its keys were names of properties, which V8 compares by their addresses.
 */
function operationsOf({ operations, commands }) {
  const named = operations.map((name, number) => [name, { number, command: commands[number] }])
  return new Map(Object.entries(Object.fromEntries(named)))
}

function numbered(names) {
  return Object.fromEntries(names.map((name, number) => [name, number]))
}

module.exports = { loadProtocol }
