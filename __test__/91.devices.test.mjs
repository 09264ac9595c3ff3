// The app of examples/devices in a real browser, with two profiles.
import assert from "node:assert/strict"
import { after, afterEach, before, beforeEach, describe, test } from "node:test"

import { openBrowser } from "../testing/browser.mjs"
import { layOutExample, startExample } from "./support/examples.mjs"
import { ownServer } from "./support/servers.mjs"

const browser = await openBrowser()
after(() => browser?.close())
const server = ownServer()

describe("examples/devices", { skip: browser === undefined && "Chromium is not installed" }, () => {
  let laidOut
  let app
  let profiles = []
  const errors = []
  before(() => {
    laidOut = layOutExample("devices")
  })
  beforeEach(async () => {
    await server.client.flushAll()
    app = await startExample(laidOut, { REDIS_URL: server.url })
  })
  afterEach(async () => {
    for (const context of profiles) await context.close()
    profiles = []
    assert.equal(await app.stop(), 0)
    assert.deepEqual(errors.splice(0), [])
  })
  after(() => laidOut.remove())

  /** A signed-in page in a new browser profile. */
  async function signedIn(name, userAgent) {
    const context = await browser.newContext({ userAgent })
    profiles.push(context)
    const page = await context.newPage()
    page.setDefaultTimeout(20_000)
    page.on("pageerror", (error) => errors.push(error))
    await page.goto(app.url)
    await page.getByLabel("Name").fill(name)
    await page.getByLabel("Password").fill("open sesame")
    await page.getByRole("button", { name: "Sign in" }).click()
    await page.getByRole("heading", { name: "Your devices" }).waitFor()
    return page
  }

  const titleOf = async (page) => {
    await page.goto(app.url)
    return page.getByRole("heading").textContent()
  }
  const devices = async (page) => {
    await page.goto(app.url)
    return page.getByRole("listitem").allTextContents()
  }

  test("shows the devices of a user, and marks the current one", async () => {
    const [laptop, phone] = [await signedIn("ada", "Laptop/1.0"), await signedIn("ada", "Phone/2.0 <b>")]
    await signedIn("bob", "Tablet/3.0")
    const seen = await devices(laptop)
    assert.equal(seen.length, 2)
    assert.match(
      seen.find((text) => text.includes("Laptop/1.0")),
      /\(this device\)/,
    )
    assert.doesNotMatch(
      seen.find((text) => text.includes("Phone/2.0 <b>")),
      /\(this device\)/,
    )
    assert.match(
      (await devices(phone)).find((text) => text.includes("Phone/2.0 <b>")),
      /\(this device\)/,
    )
  })

  test("sign out everywhere else: the other profile is signed out at its next request", async () => {
    const [laptop, phone] = [await signedIn("ada", "Laptop/1.0"), await signedIn("ada", "Phone/2.0")]
    const other = await signedIn("bob", "Tablet/3.0")
    await laptop.goto(app.url)
    await laptop.getByRole("button", { name: "Sign out everywhere else" }).click()
    await laptop.getByText("Phone/2.0").waitFor({ state: "detached" })
    assert.equal(await titleOf(phone), "Sign in")
    assert.equal(await titleOf(laptop), "Your devices")
    assert.equal((await devices(laptop)).length, 1)
    assert.equal(await titleOf(other), "Your devices")
  })

  test("signs out another device, then this one", async () => {
    const [laptop, phone] = [await signedIn("ada", "Laptop/1.0"), await signedIn("ada", "Phone/2.0")]
    await laptop.goto(app.url)
    await laptop.getByRole("listitem").filter({ hasText: "Phone/2.0" }).getByRole("button").click()
    await laptop.getByText("Phone/2.0").waitFor({ state: "detached" })
    assert.equal(await titleOf(phone), "Sign in")
    await laptop.getByRole("listitem").filter({ hasText: "Laptop/1.0" }).getByRole("button").click()
    await laptop.getByRole("heading", { name: "Sign in" }).waitFor()
    assert.equal((await server.client.keys("users:*")).length, 0)
  })

  test("a wrong password is rejected, and no page cuts off text", async () => {
    const context = await browser.newContext({ viewport: { width: 360, height: 700 } })
    profiles.push(context)
    const page = await context.newPage()
    await page.goto(app.url)
    await page.getByLabel("Name").fill("ada")
    await page.getByLabel("Password").fill("guess")
    await page.getByRole("button", { name: "Sign in" }).click()
    await page.getByRole("alert").waitFor()
    assert.deepEqual(await server.client.keys("users:*"), [])
    const narrow = await signedIn("x".repeat(40), "y".repeat(300))
    await narrow.setViewportSize({ width: 360, height: 700 })
    for (const each of [page, narrow]) {
      const overflow = await each.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
      assert.ok(overflow <= 0, `${overflow} px`)
    }
  })
})
