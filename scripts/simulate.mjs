// The simulation of tests/simulation.rs: `npm run simulate -- --seconds 600` runs on with new seeds,
// `--seed 7` replays one, `--mutations` reintroduces known mistakes and prints how soon each is found.
import { spawnSync } from "node:child_process"
import { parseArgs } from "node:util"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "30" },
    seed: { type: "string" },
    mutations: { type: "boolean", default: false },
  },
})
const environment = { SIMULATION_SECONDS: values.seconds, SIMULATION_FIRST_SEED: String(Date.now()) }
if (values.seed !== undefined) environment.SIMULATION_SEED = values.seed
const words = ["test", "--test", "simulation"]
if (values.mutations) words.push("--features", "mutations", "every_mistake")
words.push("--", "--nocapture")
const { status } = spawnSync("cargo", words, { stdio: "inherit", env: { ...process.env, ...environment } })
process.exitCode = status ?? 1
