const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" }
const escaped = (value) => String(value).replace(/[&<>"']/g, (character) => ENTITIES[character])

const STYLE = `
  :root { color-scheme: light dark; --line: #8884; --accent: #c6302b }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  h1 { font-size: 1.4rem } h1 small { font-weight: normal; opacity: .65; font-size: 1rem }
  section { border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem; margin: 1rem 0 }
  h2 { font-size: 1rem; margin: 0 0 .5rem } b { color: var(--accent) }
  form { display: flex; gap: .5rem } input { flex: 1 }
  input, button { font: inherit; padding: .4rem .7rem; border: 1px solid var(--line); border-radius: .5rem }
  button { cursor: pointer; background: var(--accent); color: #fff; border-color: transparent }
  pre { overflow-x: auto; margin: 0 } footer { opacity: .65; font-size: .9rem }`

/** The one page of the app: a visit, or an error. */
export function page({ id, session, sessions, redis, native, error }) {
  const body = error
    ? `<section><h2>The session store does not answer</h2><p>${escaped(error.code)} (${error.status}). Reload to try again.</p></section>`
    : `${signIn(session.user)}
      <section><h2>Visits</h2><p>You have been here <b>${session.visits}</b> ${session.visits === 1 ? "time" : "times"}.
        ${sessions} ${sessions === 1 ? "session is" : "sessions are"} stored.</p></section>
      <section><h2>My session</h2><pre>${escaped(
        JSON.stringify({ id: `${id.slice(0, 6)}…`, ...session }, null, 2),
      )}</pre></section>`
  const store = error ? "" : `<p>Store: connect-redis-native (${native ? "native" : "delegating"})</p>`
  return `<!doctype html><html lang="en"><meta charset="utf-8">
    <meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>Sessions in Redis</title><style>${STYLE}</style>
    <h1>connect-redis-native <small>under Express 5</small></h1>${body}
    <footer><p>Redis: ${escaped(redis)}</p>${store}</footer></html>`
}

function signIn(user) {
  return user === undefined
    ? `<section><h2>Sign in</h2><form method="post" action="/sign-in">
        <input name="name" placeholder="Your name" maxlength="40" required autofocus><button>Sign in</button></form></section>`
    : `<section><h2>Hello, ${escaped(user)}</h2><form method="post" action="/sign-out"><button>Sign out</button></form></section>`
}
