import { readFileSync } from "node:fs"

/** The code blocks of a Markdown file: `{language, code, line, heading}`. */
export function blocks(url) {
  const found = []
  let heading = ""
  let open
  for (const [at, line] of readFileSync(url, "utf8").split("\n").entries()) {
    const fence = /^```(.*)$/.exec(line)
    if (fence && open) {
      found.push({ ...open, code: open.lines.join("\n") })
      open = undefined
    } else if (fence) {
      open = { language: fence[1].trim(), line: at + 1, heading, lines: [] }
    } else if (open) {
      open.lines.push(line)
    } else if (line.startsWith("#")) {
      heading = line.replace(/^#+ /, "")
    }
  }
  if (open) throw new Error(`The block at line ${open.line} does not end.`)
  return found
}

/** The two sides of a diff. */
export function sides(diff) {
  const lines = diff.split("\n")
  const wrong = lines.find((line) => line !== "" && !/^[ +-]/.test(line))
  if (wrong !== undefined) throw new Error(`Not a line of a diff: ${wrong}`)
  const without = (sign) => lines.filter((line) => !line.startsWith(sign)).map((line) => line.slice(1))
  return { before: without("+").join("\n"), after: without("-").join("\n") }
}
