const UNITS_PER_MS = 10_000
const SUB_BUCKETS = 64

// Counts latencies in buckets at most 1/64 wide: constant memory and no allocation, however many are recorded.
export class Histogram {
  #counts = new Float64Array(SUB_BUCKETS * 32)
  total = 0

  record(ms) {
    const units = Math.round(ms * UNITS_PER_MS)
    const shift = Math.max(0, 25 - Math.clz32(units))
    this.#counts[shift * SUB_BUCKETS + (units >>> shift)]++
    this.total++
  }

  reset() {
    this.#counts.fill(0)
    this.total = 0
  }

  // The middle of the bucket that holds the given share (0 to 1) of all latencies, in ms.
  quantile(share) {
    let left = Math.max(1, Math.ceil(this.total * share))
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      left -= this.#counts[bucket]
      if (left <= 0) return middle(bucket) / UNITS_PER_MS
    }
    return NaN
  }
}

function middle(bucket) {
  if (bucket < 2 * SUB_BUCKETS) return bucket
  const shift = Math.floor(bucket / SUB_BUCKETS) - 1
  return ((bucket - shift * SUB_BUCKETS) * 2 + 1) * 2 ** (shift - 1)
}
