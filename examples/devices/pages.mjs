const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" }
const escaped = (value) => String(value).replace(/[&<>"']/g, (character) => ENTITIES[character])

const STYLE = `
  :root { color-scheme: light dark; --line: #8884; --accent: #c6302b }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; overflow-wrap: anywhere }
  h1 { font-size: 1.4rem } ul { list-style: none; padding: 0 }
  li { border: 1px solid var(--line); border-radius: .75rem; padding: .75rem 1rem; margin: .75rem 0 }
  li p { margin: 0 0 .25rem } small { opacity: .65 } [role="alert"] { color: var(--accent) }
  input, button { font: inherit; padding: .4rem .7rem; border: 1px solid var(--line); border-radius: .5rem }
  button { cursor: pointer; background: var(--accent); color: #fff; border-color: transparent }`

function page(title, body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <link rel="icon" href="data:,"><title>${title}</title><style>${STYLE}</style><h1>${title}</h1>${body}</html>`
}

export function signInPage({ isWrong }) {
  return page(
    "Sign in",
    `${isWrong ? '<p role="alert">Wrong name or password.</p>' : ""}<form method="post" action="/sign-in">
      <input name="name" placeholder="Name" aria-label="Name" maxlength="40" required autofocus>
      <input name="password" type="password" placeholder="open sesame" aria-label="Password" required>
      <button>Sign in</button></form>`,
  )
}

/** `devices` is the result of `sessionsOf`. */
export function devicesPage({ user, devices }) {
  return page(
    "Your devices",
    `<p>Signed in as <b>${escaped(user)}</b></p><ul>${devices.map(device).join("")}</ul>
      <form method="post" action="/devices/sign-out-others"><button>Sign out everywhere else</button></form>`,
  )
}

function device({ handle, created, lastSeen, info, current }) {
  const action = current ? "/sign-out" : `/devices/${encodeURIComponent(handle)}/sign-out`
  return `<li${current ? " data-current" : ""}><p>${escaped(info.agent || "Unknown browser")}${current ? " <b>(this device)</b>" : ""}</p>
    <p><small>${escaped(info.ip ?? "")}, signed in ${escaped(created.toUTCString())}, last seen ${escaped(lastSeen.toUTCString())}</small></p>
    <form method="post" action="${action}"><button>Sign out</button></form></li>`
}

export function errorPage({ status, code }) {
  return page("The session store does not answer", `<p>${escaped(code)} (${status}). Reload to try again.</p>`)
}
