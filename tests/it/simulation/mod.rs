//! The registry and its sidecars under faults, deterministically: one thread, one seed, one trace.
//!
//! The state machines are the program's own ([`exeat::engine::follow`], `Removed`, `Attendance`,
//! `Window`); network, disks, clocks and operators are simulated. An oracle that sees true time
//! checks every decision.
//!
//! `EXEAT_SEEDS=20000` runs more seeds, `EXEAT_SEED=n` one.

mod disk;
mod oracle;
mod registry;
mod sidecar;
mod world;

use exeat::engine::planted::{Bug, plant};
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;
/// Within how many seeds a planted fault is to be found.
const WITHIN: u64 = 2_000;

fn variable(name: &str) -> Option<u64> {
    std::env::vars()
        .find(|(known, _)| known == name)
        .and_then(|(_, value)| value.parse().ok())
}

#[test]
fn every_invariant_holds_in_every_seed() {
    let seeds = match variable("EXEAT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("EXEAT_SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let mut seen = world::Seen::default();
    for seed in seeds {
        let mut world = World::new(seed);
        let violations = world.run();
        assert!(
            violations.is_empty(),
            "seed {seed}:\n{}\nrun EXEAT_SEED={seed} cargo test --test it simulation::",
            violations.join("\n")
        );
        seen.add(world.seen());
    }
    println!("{count} seeds: {seen:?}");
    if count >= SEEDS {
        assert!(seen.every_kind(), "something never happened: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let trace = || {
            let mut world = World::new(seed);
            world.run();
            world.trace()
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
    assert_ne!(
        {
            let mut world = World::new(1);
            world.run();
            world.trace()
        },
        {
            let mut world = World::new(2);
            world.run();
            world.trace()
        }
    );
}

#[test]
fn every_planted_fault_is_found() {
    let mut table = Vec::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(*bug));
        let found = (0..WITHIN).find_map(|seed| {
            let violations = World::new(seed).run();
            Some((seed, violations.into_iter().next()?))
        });
        plant(None);
        match found {
            Some((seed, what)) => {
                table.push(format!("{:>6}  {:<55} {what}", seed + 1, bug.name()));
            }
            None => missed.push(bug.name()),
        }
    }
    println!(
        " seeds  planted fault{:<43}found as\n{}",
        "",
        table.join("\n")
    );
    assert!(missed.is_empty(), "not found in {WITHIN} seeds: {missed:?}");
}
