//! Checks the lock-free parts under a scheduler that explores interleavings. Only compiled with
//! `--cfg shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks assert that a handler never runs concurrently with itself or after it was freed, and
//! that no message is lost. See `interleavings/mutants.txt` for the faults that they must find.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod handler_cell;
mod shared_line;

/// Number of random interleavings per scenario.
const SCHEDULES: usize = 200_000;

fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
}
