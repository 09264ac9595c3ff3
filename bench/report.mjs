import { BASELINE, OURS } from "./stores.mjs"

const IN_FULL = [BASELINE, OURS]

// The median of the rounds, for each figure by itself.
export function summarize(workloads, rounds) {
  return workloads.map(({ name, op, bytes, concurrency }) => ({
    name,
    op,
    bytes,
    concurrency,
    stores: Object.entries(rounds[name]).map(([store, figures]) => ({
      store,
      ratio: ratio(figures, rounds[name][BASELINE]),
      median: medians(figures),
      rounds: figures,
    })),
  }))
}

function ratio(figures, baseline) {
  return baseline ? medians(figures).opsPerSecond / medians(baseline).opsPerSecond : null
}

function medians(figures) {
  const names = Object.keys(figures[0])
  return Object.fromEntries(names.map((name) => [name, median(figures.map((figure) => figure[name]))]))
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2
}

export function formatReport(results) {
  return [...header(results), "", ...table(results), ""].join("\n")
}

function header(results) {
  const { date, machine, node, redis, cluster, tls, cpuSource, binary, rounds, seconds, stores, skipped } = results
  const topology = cluster ? ", a cluster of three masters" : tls ? ", over TLS" : ""
  return [
    "",
    `${date}, ${machine}`,
    `Node ${node}, Redis ${redis}${topology}, median of ${rounds} rounds of ${seconds} s; CPU is that of the ${cpuSource}`,
    ...(binary
      ? [`native binary: ${(binary.bytes / 1e6).toFixed(2)} MB, ${binary.stripped ? "" : "not "}stripped`]
      : []),
    "",
    ...stores.map(({ name, title, versions }) => `  ${name.padEnd(18)}${title} (${versions.join(", ")})`),
    ...skipped.map(({ name, reason }) => `  ${name.padEnd(18)}SKIPPED: ${reason}`),
    "",
    "ratio = operations per second, as a multiple of the baseline's",
  ]
}

function table({ stores, workloads }) {
  const names = stores.map(({ name }) => name)
  const groups = [{ title: "", columns: ["workload"] }]
  for (const name of names) groups.push({ title: name, columns: columnsOf(name) })
  const body = workloads.map((workload) => [
    [workload.name],
    ...names.map((name) => cellsOf(workload.stores.find(({ store }) => store === name))),
  ])
  return align(groups, body)
}

function columnsOf(name) {
  const ratio = name === BASELINE ? [] : ["ratio"]
  return IN_FULL.includes(name) ? [...ratio, "op/s", "p50 ms", "p99 ms", "CPU us/op"] : ratio
}

function cellsOf({ store, ratio, median }) {
  const first = store === BASELINE ? [] : [ratio === null ? "-" : ratio.toFixed(2)]
  if (!IN_FULL.includes(store)) return first
  const { opsPerSecond, p50Ms, p99Ms, cpuMicrosecondsPerOp } = median
  return [...first, opsPerSecond.toFixed(0), p50Ms.toFixed(3), p99Ms.toFixed(3), cpuMicrosecondsPerOp.toFixed(1)]
}

// A group is a store: its name stands over its columns.
function align(groups, body) {
  const widths = groups.map(({ columns }, group) =>
    columns.map((column, at) => Math.max(column.length, ...body.map((row) => row[group][at].length))),
  )
  for (const [group, { title }] of groups.entries()) {
    widths[group][0] += Math.max(0, title.length - widthOf(widths[group]))
  }
  const titles = groups.map(({ title }, group) => title.padStart(widthOf(widths[group])))
  const line = (cells, group) =>
    cells.map((cell, at) => (group === 0 ? cell.padEnd(widths[0][0]) : cell.padStart(widths[group][at]))).join("  ")
  const rows = [groups.map(({ columns }) => columns), ...body]
  return [titles.join(" | "), ...rows.map((row) => row.map(line).join(" | "))]
}

function widthOf(widths) {
  return widths.reduce((sum, width) => sum + width + 2, -2)
}
