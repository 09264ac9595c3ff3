import { existsSync } from "node:fs"

import { chromium } from "playwright-core"

import { aptInstall } from "./apt.mjs"

const PATHS = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
/** No network access except the page: tests may run offline. */
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]

/** Opens a headless Chromium: the installed one or, as root on Debian, one that apt installs; otherwise undefined. */
export async function openBrowser() {
  const find = () => PATHS.find((path) => path !== undefined && existsSync(path))
  if (find() === undefined) await aptInstall("chromium")
  const executablePath = find()
  if (executablePath === undefined) return undefined
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--no-first-run", ...QUIET] })
}
