import { OTHER_CLIENTS } from "./support/clients.mjs"
import { delegatedContract } from "./support/delegated.mjs"
import { ownServer } from "./support/servers.mjs"

delegatedContract(
  ownServer(),
  OTHER_CLIENTS.filter(({ name }) => !/lazy|not connected|pool|credentials/.test(name)),
)
