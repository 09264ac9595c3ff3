// The page of `npm run demo` in a real browser: each button, both columns.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { startDemo } from "../examples/demo/server.mjs"
import { openBrowser } from "../testing/browser.mjs"

const browser = await openBrowser()
after(() => browser?.close())

describe("the demo", { skip: browser === undefined && "Chromium is not installed" }, () => {
  let demo
  let page
  const errors = []
  const requested = []
  before(async () => {
    demo = await startDemo({ port: 0 })
    page = await browser.newPage()
    page.setDefaultTimeout(40_000)
    page.on("pageerror", (error) => errors.push(error))
    page.on("request", (request) => requested.push(request.url()))
    await page.goto(demo.url)
  })
  after(() => demo?.close())

  const outcome = (scene, app) => page.locator(`[data-scene="${scene}"] [data-app="${app}"]`)

  /** Clicks the button of a scene, and returns the outcomes of both columns. */
  async function play(scene) {
    await page.locator(`[data-scene="${scene}"] button`).click()
    const read = async (app) => {
      const item = outcome(scene, app)
      await item.waitFor()
      return { class: await item.getAttribute("class"), says: await item.textContent() }
    }
    return { original: await read("connect-redis"), ours: await read("native") }
  }

  test("shows the figures of both apps", async () => {
    for (const app of ["connect-redis", "native"]) {
      await page.waitForFunction((name) => {
        const figure = document.querySelector(`[data-app="${name}"] [data-figure="cpu"]`)
        return /\d %/.test(figure.textContent)
      }, app)
    }
  })

  test("load: both apps read and touch sessions, and show live figures", async () => {
    const playing = play("load")
    for (const app of ["connect-redis", "native"]) {
      await page.waitForFunction((name) => {
        const figure = document.querySelector(`[data-app="${name}"] [data-figure="perSecond"]`)
        return Number(figure.textContent.replaceAll(",", "")) > 0
      }, app)
    }
    for (const { says } of Object.values(await playing)) assert.match(says, /✓ [\d,]+ a second\.$/)
  })

  const SCENES = {
    cart: [/^.*✗ One item is lost/, /✓ Both items are in the cart\.$/],
    logout: [/✗ Signed in again as ada/, /✓ Signed out, and stays signed out\.$/],
    freeze: [/✗ First: answered in/, /✓ First: ERR_REDIS_STORE_(TIMEOUT|CONNECT) [^]*Afterwards: answered/],
    kill: [/✗ First: /, /✓ First: ERR_REDIS_STORE_CONNECT [^]*Afterwards: answered/],
  }
  for (const [scene, [original, ours]] of Object.entries(SCENES)) {
    test(`${scene}: connect-redis on the left, this package on the right`, async () => {
      const said = await play(scene)
      assert.match(said.original.says, original)
      assert.equal(said.original.class, "bad")
      assert.match(said.ours.says, ours)
      assert.equal(said.ours.class, "good")
    })
  }

  test("primary: both are served afterwards", async () => {
    const said = await play("primary")
    assert.match(said.original.says, /First: READONLY [^]*Afterwards: answered/)
    assert.match(said.ours.says, /Afterwards: answered/)
  })

  test("makes no request to another server and has no script error", () => {
    assert.deepEqual(errors, [])
    assert.deepEqual([...new Set(requested.map((url) => new URL(url).origin))], [new URL(demo.url).origin])
  })

  for (const [name, width, colorScheme] of [
    ["wide", 1200, "light"],
    ["narrow", 360, "light"],
    ["dark", 800, "dark"],
  ]) {
    test(`nothing is cut off in a ${name} window`, async () => {
      await page.emulateMedia({ colorScheme })
      await page.setViewportSize({ width, height: 900 })
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
      assert.ok(overflow <= 0, `${overflow} px`)
      if (process.env.SCREENSHOTS)
        await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true })
    })
  }
})
