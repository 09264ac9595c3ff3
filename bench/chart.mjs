// `npm run bench:chart`: bench/results.json as bench/chart.svg.
import { readFileSync, writeFileSync } from "node:fs"

import { BASELINE, OURS } from "./stores.mjs"

const RESULTS = new URL("./results.json", import.meta.url)
const CHART = new URL("./chart.svg", import.meta.url)
const [WIDTH, LABEL, BAR, GAP, LEGEND] = [760, 150, 9, 8, 52]
const LINE = 15
const COLOURS = { [OURS]: "#b7410e", memory: "#9a9a9a" }
const OTHERS = ["#5b7db1", "#8fb0d9"]

const { date, machine, node, redis, rounds, seconds, stores, workloads } = JSON.parse(readFileSync(RESULTS, "utf8"))
// MemoryStore uses no network: its bars would dwarf the others.
const shown = stores.filter(({ name }) => name !== BASELINE && name !== "memory")
const colourOf = (name, at) => COLOURS[name] ?? OTHERS[at % OTHERS.length]
const largest = Math.max(...workloads.flatMap(({ stores: all }) => shown.map(({ name }) => ratioOf(all, name) ?? 0)))
const scale = (WIDTH - LABEL - 60) / largest
const TOP = LEGEND + shown.length * LINE + 8
const height = shown.length * BAR + GAP
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
const parts = []

for (const [at, { name, title, versions }] of shown.entries()) {
  const y = LEGEND + at * LINE
  parts.push(`<rect x="12" y="${y - 9}" width="10" height="10" fill="${colourOf(name, at)}"/>`)
  parts.push(`<text x="27" y="${y}">${escape(title)} (${escape(versions.join(", "))})</text>`)
}
for (const [row, workload] of workloads.entries()) {
  const y = TOP + row * height
  parts.push(`<text x="${LABEL - 8}" y="${y + height / 2}" text-anchor="end">${escape(workload.name)}</text>`)
  for (const [at, { name }] of shown.entries()) {
    const ratio = ratioOf(workload.stores, name)
    if (ratio === undefined) continue
    const top = y + at * BAR
    const width = (ratio * scale).toFixed(1)
    parts.push(`<rect x="${LABEL}" y="${top}" width="${width}" height="${BAR - 1}" fill="${colourOf(name, at)}"/>`)
    if (name === OURS) {
      parts.push(`<text x="${LABEL + ratio * scale + 4}" y="${top + BAR - 1}">${ratio.toFixed(2)}</text>`)
    }
  }
}
const bottom = TOP + workloads.length * height
const one = LABEL + scale
parts.push(`<line x1="${one}" y1="${TOP - 6}" x2="${one}" y2="${bottom}" stroke="#444" stroke-dasharray="3 3"/>`)
const { title: baseline } = stores.find(({ name }) => name === BASELINE)
const caption = `${date.slice(0, 10)}; ${machine}; Node ${node}, Redis ${redis}; medians of ${rounds} rounds of ${seconds} s`
writeFileSync(
  CHART,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${bottom + 14}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="#fff"/>
<text x="12" y="18" font-size="13" font-weight="bold">Operations per second, as a multiple of ${escape(baseline)} (dashed line)</text>
<text x="12" y="34" fill="#666">${escape(caption)}</text>
${parts.join("\n")}
</svg>
`,
)
console.log(`Wrote ${CHART.pathname}`)

function ratioOf(measured, name) {
  return measured.find(({ store }) => store === name)?.ratio ?? undefined
}
