import { parseArgs } from "node:util"

const FULL = { rounds: 7, seconds: 1 }
const QUICK = { rounds: 3, seconds: 0.5 }

export const USAGE = `Options:
  --quick            a subset of the workloads, ${QUICK.rounds} rounds of ${QUICK.seconds} s (under two minutes)
  --cluster          a cluster of three masters instead of one server
  --tls              TLS to one server
  --only <regex>     only the workloads whose name matches, such as "^get 300B"
  --stores <regex>   only the stores whose name matches, such as "native|baseline"
  --rounds <n>       rounds for each workload (default ${FULL.rounds})
  --seconds <n>      measured seconds for each workload, store and round (default ${FULL.seconds})`

export class UsageError extends Error {}

export function readOptions(args) {
  const raw = parse(args)
  const defaults = raw.quick ? QUICK : FULL
  if (raw.cluster && raw.tls) throw new UsageError(`Options "--cluster" and "--tls" exclude each other.\n${USAGE}`)
  const rounds = number("rounds", raw.rounds, defaults.rounds)
  if (!Number.isInteger(rounds)) throw wrong("rounds", "a whole number", raw.rounds)
  return {
    quick: raw.quick === true,
    cluster: raw.cluster === true,
    tls: raw.tls === true,
    only: regex("only", raw.only),
    stores: regex("stores", raw.stores),
    rounds,
    seconds: number("seconds", raw.seconds, defaults.seconds),
  }
}

function parse(args) {
  const options = {
    quick: { type: "boolean" },
    cluster: { type: "boolean" },
    tls: { type: "boolean" },
    only: { type: "string" },
    stores: { type: "string" },
    rounds: { type: "string" },
    seconds: { type: "string" },
  }
  try {
    return parseArgs({ args, options }).values
  } catch (error) {
    throw new UsageError(`${error.message}\n${USAGE}`)
  }
}

function number(name, raw, fallback) {
  if (raw === undefined) return fallback
  const value = Number(raw)
  if (!Number.isFinite(value) || value <= 0) throw wrong(name, "a number above 0", raw)
  return value
}

function regex(name, raw) {
  try {
    return new RegExp(raw ?? "")
  } catch {
    throw wrong(name, "a regular expression", raw)
  }
}

function wrong(name, expected, raw) {
  return new UsageError(`Option "--${name}" must be ${expected}, got "${raw}".\n${USAGE}`)
}
