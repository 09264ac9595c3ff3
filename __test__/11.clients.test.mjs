import { contractByClient } from "./support/by-client.mjs"
import { OTHER_CLIENTS } from "./support/clients.mjs"
import { ownServer } from "./support/servers.mjs"

contractByClient(ownServer(), OTHER_CLIENTS)
