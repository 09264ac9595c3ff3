"use strict"

const { names } = require("../listing.js")
const { OPERATIONS } = require("../operations.js")
const { ask } = require("../request.js")
const { nextTick, nextTurn } = require("../timers.js")
const { hashId, isHash } = require("./hash.js")
const { MOVING } = require("./moving.js")

/** Sessions that are read at once, and sealed at once. */
const PAGE = 100
/** How often a session is tried that others write meanwhile. */
const TRIES = 5

/**
 * Seals every session with the first key, or writes it as the options say now, and keeps how long it lives. Each is
 * written only over what was read. One page after the other, so that other requests come in between.
 */
async function reseal(store, inside) {
  const found = await names(store, inside)
  const progress = { total: found.length, done: 0, resealed: 0, failed: 0 }
  for (let at = 0; at < found.length; at += PAGE) {
    if (at > 0) await nextTurn()
    const page = await pageOf(store, inside, found.slice(at, at + PAGE))
    // What fails in the middle of a page is not left behind: it goes on until all have ended.
    const settled = await Promise.allSettled(page.map(([name, stored]) => ended(store, inside, name, stored)))
    const broken = settled.find(({ status }) => status === "rejected")
    if (broken !== undefined) throw broken.reason
    progress.done += settled.length
    progress.resealed += settled.filter(({ value }) => value === "resealed").length
    progress.failed += settled.filter(({ value }) => value === "failed").length
    tell(store, { ...progress })
  }
  await inside.users?.reseal()
  return progress
}

/** `[name, stored]` of each; undefined for one that is to be read by itself. */
async function pageOf(store, { backend }, some) {
  const keys = some.map((name) => store.prefix + name)
  try {
    const stored = await ask((request) => backend.mget(keys, request))
    return some.map((name, at) => [name, stored[at]])
  } catch (error) {
    // Too large for one reply.
    if (error.code !== "ERR_REDIS_STORE_DECODE") throw error
    return some.map((name) => [name, undefined])
  }
}

function read(backend, key) {
  return ask((request) => backend.send(OPERATIONS.get, key, "", 0, request))
}

/**
 * "resealed", "failed" for one that does not open or is written all the time, or "skipped". Rejects where no
 * session can be resealed: without a connection, for example.
 */
async function ended(store, inside, name, stored) {
  try {
    return await one(store, inside, name, stored)
  } catch (error) {
    // A key of another application.
    if (/^WRONGTYPE\b/.test(error.cause?.message)) return "skipped"
    if (error.code === "ERR_REDIS_STORE_DECODE" || error.code === "ERR_REDIS_STORE_ENCODE") return "failed"
    throw error
  }
}

async function one(store, { backend, sealing, migrates, prepares }, name, first) {
  const key = store.prefix + name
  if (migrates && !isHash(name)) return (await moved(store, backend, name)) ? "resealed" : "skipped"
  let stored = first === undefined ? await read(backend, key) : first
  for (let tries = 0; tries < TRIES; tries++) {
    if (stored === null || stored === "") return "skipped"
    // The process that moves it seals it.
    if (prepares && stored.startsWith(MOVING)) return "skipped"
    const value = sealing.resealed(key, stored)
    if (value === null) return "skipped"
    const base = stored
    const reply = await ask((request) => backend.rewrite(key, base, value, request))
    if (reply === true) return "resealed"
    if (reply === null) return "skipped"
    stored = typeof reply === "string" ? reply : await read(backend, key)
  }
  return "failed"
}

/** Moves a session to its hashed key; whether there is one. */
async function moved(store, backend, sid) {
  const stored = await ask((request) => {
    request.sid = sid
    backend.move(store.prefix + hashId(sid), request)
  })
  return stored !== null
}

function tell(store, progress) {
  if (store.listenerCount("reseal") > 0) nextTick(() => store.emit("reseal", progress))
}

module.exports = { reseal }
