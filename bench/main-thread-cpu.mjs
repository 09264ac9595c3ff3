import { readFileSync } from "node:fs"

const SCHEDSTAT = `/proc/self/task/${process.pid}/schedstat`

// Only the main thread's CPU time: the rest of the application cannot use it, and a store that moves work to
// other threads should show that.
export const mainThreadCpu = choose()

function choose() {
  if (process.threadCpuUsage) {
    return { source: "main thread", read: () => microseconds(process.threadCpuUsage()) }
  }
  if (canRead()) {
    return { source: "main thread", read: () => Number(readFileSync(SCHEDSTAT, "utf8").split(" ", 1)[0]) / 1000 }
  }
  return {
    source: "WHOLE PROCESS (this platform does not report the main thread)",
    read: () => microseconds(process.cpuUsage()),
  }
}

function canRead() {
  try {
    return Number(readFileSync(SCHEDSTAT, "utf8").split(" ", 1)[0]) > 0
  } catch {
    return false
  }
}

function microseconds({ user, system }) {
  return user + system
}
