//! Shared-ownership checks that run under a scheduler which explores interleavings. Compiled only
//! with `--cfg shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks assert that a shared value is freed exactly once, by its last owner.
//! `interleavings/mutants.txt` lists the bugs that they must catch.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod shared;

/// Number of random interleavings of each scenario.
const SCHEDULES: usize = 200_000;

fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
}
