// The commands of a store, one by one.

const WITH_KEY = { byUser: 1, send: 1, destroy: 0, restore: 1, rewrite: 0, remove: 0, swap: 0, merge: 0 }

/** Lets each command of a store wait for the promise of `before(name, key)`; "send" is named by its operation. */
export function hold(store, before) {
  const inside = Object.getOwnPropertySymbols(store)
    .map((symbol) => store[symbol])
    .find((value) => value?.backend !== undefined)
  // With `hashIds` another backend is in front.
  const to = inside.backend.to ?? inside.backend
  for (const [name, at] of Object.entries(WITH_KEY)) {
    const run = to[name]?.bind(to)
    if (run === undefined) continue
    to[name] = async (...args) => {
      await before(at === 1 ? args[0].name : name, args[at])
      run(...args)
    }
  }
}
