import { join } from "node:path"

import typescript from "typescript-5"

const ROOT = join(import.meta.dirname, "../..")
const FILE = join(ROOT, "__test__/support/option-types.virtual.ts")

/**
 * The names of the properties of TypeScript types, read from the declarations of the installed packages.
 * `types` maps a name to an expression such as `import("ioredis").RedisOptions`. A union has the properties
 * of all its members.
 */
export function propertiesOf(types) {
  const lines = Object.values(types).map((type, at) => `export type T${at} = ${type}`)
  const program = typescript.createProgram([FILE], COMPILER_OPTIONS, host(lines.join("\n")))
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(FILE)
  const wrong = typescript.getPreEmitDiagnostics(program, source)
  if (wrong.length > 0) throw new Error(typescript.flattenDiagnosticMessageText(wrong[0].messageText, "\n"))
  const aliases = source.statements.filter(typescript.isTypeAliasDeclaration)
  return Object.fromEntries(
    Object.keys(types).map((name, at) => [
      name,
      [...names(checker, checker.getTypeAtLocation(aliases[at]))].toSorted(),
    ]),
  )
}

const COMPILER_OPTIONS = {
  module: typescript.ModuleKind.Node16,
  moduleResolution: typescript.ModuleResolutionKind.Node16,
  target: typescript.ScriptTarget.ES2022,
  strict: true,
  skipLibCheck: true,
  noEmit: true,
  types: ["node"],
}

/** A compiler host with one additional file, which has this text. */
function host(text) {
  const real = typescript.createCompilerHost(COMPILER_OPTIONS)
  return {
    ...real,
    getCurrentDirectory: () => ROOT,
    fileExists: (file) => file === FILE || real.fileExists(file),
    readFile: (file) => (file === FILE ? text : real.readFile(file)),
    getSourceFile: (file, ...rest) =>
      file === FILE ? typescript.createSourceFile(file, text, rest[0], true) : real.getSourceFile(file, ...rest),
  }
}

function names(checker, type) {
  const types = type.isUnion() ? type.types : [type]
  return new Set(types.flatMap((member) => checker.getPropertiesOfType(member).map((property) => property.getName())))
}
