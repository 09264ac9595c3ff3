// Not index.js: its __esModule makes runtimes disagree on what a default import of it is.
import classes from "./lib/classes.js"

export const { RedisStore, RedisStoreError } = classes
export default RedisStore
