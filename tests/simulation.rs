//! A store in a simulated world: random faults, random callers, a clock that jumps from event to event.
//! After every step all invariants are checked; a run that violates one prints its seed, which replays it:
//! `SIMULATION_SEED=7 cargo test --test simulation`.

#![expect(
    clippy::print_stdout,
    reason = "prints the number of runs, and how soon mistakes were found"
)]

#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/world.rs"]
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use world::World;

/// The duration of faults in simulated time.
const FAULTY: Duration = Duration::from_secs(8);

/// Runs `seed`. The error is the violated invariant.
fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    let about = world.describe();
    let run = AssertUnwindSafe(|| {
        world.run_until(FAULTY);
        world.heal();
        world.run_until(FAULTY + world.recovery());
        world.check_calm();
        world.is_quiet = true;
        let healthy_since = world.now;
        world.read_all();
        world.call();
        world.run_until(healthy_since + 41 * world.timeout());
        world.model.check_served(
            healthy_since,
            "although all faults are over",
            world.is_a_strange_proxy,
        );
        world.model.check_order();
        world.close();
        world.run_until(world.now + 2 * world.timeout());
        assert!(world.has_ended, "close() does not end");
        assert!(world.model.open.is_empty(), "requests are left");
    });
    catch_unwind(run).map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("seed {seed} ({about}): {}", message.unwrap_or_default())
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_invariant_holds_in_every_run() {
    if let Some(seed) = number("SIMULATION_SEED") {
        return run(seed).expect("all invariants hold");
    }
    std::panic::set_hook(Box::new(|_| {}));
    let seconds = number("SIMULATION_SECONDS").unwrap_or(30);
    let first = number("SIMULATION_FIRST_SEED").unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0;
    let mut broken = Vec::new();
    while Instant::now() < end && broken.len() < 5 {
        broken.extend(run(first + count).err());
        count += 1;
    }
    let _ = std::panic::take_hook();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 10, "{count} runs in {seconds} s");
    println!("{count} runs");
}

/// Reintroduces each mistake, and prints the number of seeds until it is found.
#[cfg(feature = "mutations")]
#[test]
fn every_reintroduced_mistake_is_found() {
    use connect_redis_native::mutation::{Mutation, activate};

    std::panic::set_hook(Box::new(|_| {}));
    let most = number("SIMULATION_SEEDS").unwrap_or(2000);
    let mut missed = Vec::new();
    println!("| mutation | seeds until found | what breaks |\n|---|---|---|");
    let wanted = std::env::var("SIMULATION_MUTATION").unwrap_or_default();
    for mutation in Mutation::ALL {
        if !format!("{mutation:?}").contains(&wanted) {
            continue;
        }
        activate(Some(mutation));
        let found = (0..most).find_map(|seed| Some((seed + 1, run(seed).err()?)));
        activate(None);
        match found {
            Some((seeds, broken)) => {
                let broken = broken.split_once("): ").map_or("", |(_, broken)| broken);
                println!("| {mutation:?} | {seeds} | {broken} |");
            }
            None => missed.push(mutation),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {most} seeds: {missed:?}");
}
