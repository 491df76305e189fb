//! Checks of the lock-free parts, under a scheduler that explores interleavings. These checks are
//! only compiled with `--cfg shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks assert that a handler never runs concurrently with itself or after it was freed, and
//! that no message is lost. See `interleavings/mutants.txt` for the faults that they must find.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod handler_cell;
mod shared_line;

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

/// Number of random interleavings per scenario in an ordinary run.
const SCHEDULES: usize = 50_000;

/// Explores random interleavings. A long run explores ten times as many, with a new seed each time.
fn explore(scenario: fn()) {
    let is_long = std::env::var_os("DOORBELL_LONG").is_some();
    let schedules = if is_long { 10 * SCHEDULES } else { SCHEDULES };
    Runner::new(RandomScheduler::new_from_seed(1, schedules), Config::new()).run(scenario);
}
