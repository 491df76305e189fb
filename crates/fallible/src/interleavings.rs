//! Checks of shared ownership under a scheduler that explores interleavings. Compiled only with
//! `--cfg shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks assert that a shared value is freed exactly once, by its last owner. The file
//! `interleavings/mutants.txt` lists faults that they must find.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod shared;

/// Number of random interleavings of each scenario.
const SCHEDULES: usize = 200_000;

fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
}
