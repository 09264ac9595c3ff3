// Records `npm run demo` as examples/demo/demo.gif: plays scenes in Chromium, and writes a frame for each change of the page.
// Run it on an idle machine, because the page shows live figures.
import { statSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"

import { PNG } from "pngjs"

import { startDemo } from "../examples/demo/server.mjs"
import { openBrowser } from "../testing/browser.mjs"
import { root } from "../testing/project.mjs"
import { output } from "../testing/run.mjs"

// By require, because its ES module has no named exports in Node.
const { GIFEncoder, applyPalette, quantize } = createRequire(import.meta.url)("gifenc")
const WIDTH = 1080
const SCALE = 0.8
const COLOURS = 15
const TRANSPARENT = COLOURS
const SCENES = ["load", "cart", "logout", "freeze"]
/** The interval of frames during a scene, and of the same frames in the recording. */
const SAMPLE_MS = 800
const SHOWN_MS = 450
const OUTCOME_MS = 2500
/** Shows only the recorded scenes, each with room for its outcome, because a stable layout compresses well. */
const STYLE = `
  footer, .scene${SCENES.map((name) => `:not([data-scene="${name}"])`).join("")} { display: none }
  body { padding-bottom: 1rem }
  .outcomes { min-height: 2.75rem }
  [data-scene="freeze"] .outcomes { min-height: 8.25rem }`

const browser = await openBrowser()
if (browser === undefined) throw new Error("Chromium was not found; set CHROMIUM to its path.")
const demo = await startDemo({ port: 0 })
try {
  const page = await browser.newPage({
    viewport: { width: WIDTH, height: 600 },
    deviceScaleFactor: SCALE,
    colorScheme: "light",
  })
  await page.goto(demo.url)
  await page.addStyleTag({ content: STYLE })
  await page.waitForFunction(() => /\d %/.test(document.querySelector('[data-figure="cpu"]').textContent))
  const frames = await record(page)
  const file = join(root, "examples", "demo", "demo.gif")
  writeFileSync(file, encode(frames))
  // A quarter smaller, with the same frames.
  if (output("gifsicle", ["--batch", "-O3", file]) === undefined)
    console.log("gifsicle was not found: the file is larger than needed")
  console.log(`examples/demo/demo.gif: ${frames.length} frames, ${(statSync(file).size / 1000).toFixed(0)} kB`)
} finally {
  await demo.close()
  await browser.close()
}

/** Plays each scene. Resolves to the frames, `{pixels, width, height, ms}`. */
async function record(page) {
  const frames = []
  const take = async (ms) => {
    const { data, width, height } = PNG.sync.read(await page.screenshot({ fullPage: true }))
    frames.push({ pixels: data, width, height, ms })
  }
  await take(OUTCOME_MS)
  for (const scene of SCENES) {
    await page.locator(`[data-scene="${scene}"] button`).click()
    const outcomes = page.locator(`[data-scene="${scene}"] [data-app]`)
    while ((await outcomes.count()) === 0) {
      await delay(SAMPLE_MS)
      await take(SHOWN_MS)
    }
    await take(OUTCOME_MS)
  }
  return frames
}

/** A GIF that repeats, with one palette. Pixels that did not change are transparent, which compresses them well. */
function encode(frames) {
  const width = Math.max(...frames.map((frame) => frame.width))
  const height = Math.max(...frames.map((frame) => frame.height))
  const sample = Buffer.concat([frames[0].pixels, frames.at(-1).pixels])
  const palette = quantize(sample, COLOURS)
  const gif = GIFEncoder()
  let before
  for (const { pixels, width: own, height: ownHeight, ms } of frames) {
    // If the page has grown, earlier frames are extended below with the colour of the page's corner.
    const indexed = applyPalette(pixels, palette)
    const frame = new Uint8Array(width * height).fill(indexed[0])
    for (let y = 0; y < ownHeight; y++) frame.set(indexed.subarray(y * own, (y + 1) * own), y * width)
    const changed =
      before === undefined ? frame : frame.map((index, at) => (index === before[at] ? TRANSPARENT : index))
    gif.writeFrame(changed, width, height, {
      palette: before === undefined ? [...palette, [0, 0, 0]] : undefined,
      delay: ms,
      transparent: before !== undefined,
      transparentIndex: TRANSPARENT,
      dispose: 1,
    })
    before = frame
  }
  gif.finish()
  return Buffer.from(gif.bytes())
}
