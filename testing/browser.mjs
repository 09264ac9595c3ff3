import { existsSync } from "node:fs"

import { chromium } from "playwright-core"

import { aptInstall } from "./apt.mjs"

const PATHS = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
/** Without a look at anything but the page: tests may run where nothing else can be reached. */
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]

/** Opens a headless Chromium: the one that is there or, as root on Debian, the one that apt installs; else undefined. */
export async function openBrowser() {
  const find = () => PATHS.find((path) => path !== undefined && existsSync(path))
  if (find() === undefined) await aptInstall("chromium")
  const executablePath = find()
  if (executablePath === undefined) return undefined
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--no-first-run", ...QUIET] })
}
