// Not index.js: its `__esModule` makes runtimes disagree on the default import.
import classes from "./lib/classes.js"

export const { RedisStore, RedisStoreError } = classes
export default RedisStore
