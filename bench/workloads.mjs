const CONCURRENCIES = [1, 16, 64, 512]

const SIZES = { "300B": 300, "2kB": 2_000, "32kB": 32_000 }

const ALL = [
  ...grid(["get", "set", "touch", "get-touch"], "300B"),
  ...grid(["get", "set"], "2kB"),
  ...grid(["get", "set"], "32kB"),
]

const QUICK = new Set([
  ...grid(["get"], "300B").map((workload) => workload.name),
  "set 300B x64",
  "touch 300B x64",
  "get-touch 300B x64",
  "get 2kB x64",
  "get 32kB x64",
])

export function selectWorkloads({ quick, only }) {
  return ALL.filter(({ name }) => (!quick || QUICK.has(name)) && only.test(name))
}

function grid(ops, size) {
  return ops.flatMap((op) =>
    CONCURRENCIES.map((concurrency) => ({
      name: `${op} ${size} x${concurrency}`,
      op,
      bytes: SIZES[size],
      concurrency,
    })),
  )
}
