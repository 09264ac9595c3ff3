"use strict"

const { PATTERNS } = require("./patterns.js")

/** The same text on one line, with placeholders of the same length for code and link targets. */
function masked(text) {
  const placeholder = (found) => (found.startsWith("`") ? "x" : " ").repeat(found.length)
  return text.replaceAll(/`[^`]*`|(?<=\])\([^)]*\)|<[^>]*>/g, placeholder).replaceAll("\n", " ")
}

/** A textlint rule that reports each match of a pattern, with its advice. */
module.exports = ({ Syntax, RuleError, getSource, report, locator }) => {
  const check = (node) => {
    const text = masked(getSource(node))
    for (const { pattern, advice } of PATTERNS) {
      for (const { 0: found, index } of text.matchAll(new RegExp(pattern, `${pattern.flags}g`))) {
        const at = locator.range([index, index + found.length])
        report(node, new RuleError(`"${found.trim()}": ${advice}.`, { padding: at }))
      }
    }
  }
  return { [Syntax.Paragraph]: check, [Syntax.TableCell]: check, [Syntax.Header]: check }
}
