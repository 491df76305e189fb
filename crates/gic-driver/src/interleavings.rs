//! Checks that run under a scheduler which explores interleavings. Compiled only with `--cfg
//! shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks assert that no message to a controller inside a host bridge is lost.
//! `interleavings/mutants.txt` lists the bugs that they must catch.

mod arrivals;

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

/// Number of random interleavings of each scenario in an ordinary run.
const SCHEDULES: usize = 5_000;

/// Explores random interleavings. A long run explores ten times as many, with a new seed each time.
fn explore(scenario: fn()) {
    let is_long = std::env::var_os("DOORBELL_LONG").is_some();
    let schedules = if is_long { 10 * SCHEDULES } else { SCHEDULES };
    Runner::new(RandomScheduler::new_from_seed(1, schedules), Config::new()).run(scenario);
}
