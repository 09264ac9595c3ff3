"use strict"

/** The numbers that src/binding/submission.rs gives to operations. */
const OPERATION = {
  get: 0,
  set: 1,
  expire: 2,
  del: 3,
  mget: 4,
  length: 5,
  ids: 6,
  clear: 7,
  replace: 8,
  swap: 9,
  merge: 10,
  pttl: 11,
  ping: 12,
}

/** What each is to Redis, or begins with. */
const COMMAND = [
  "get",
  "set",
  "pexpire",
  "del",
  "mget",
  "scan",
  "scan",
  "scan",
  "set",
  "evalsha",
  "evalsha",
  "pttl",
  "ping",
]

module.exports = { COMMAND, OPERATION }
