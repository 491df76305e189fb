//! Checks lock-free interactions between senders, commands and vCPUs under a scheduler that chooses
//! the interleavings. The checks are only compiled with `--cfg shuttle`; `cargo xtask test --only
//! interleavings` runs them.
//!
//! The checks show that no interrupt is lost, misplaced or late, and that no wake-up is missed. The
//! file `interleavings/mutants.txt` lists the mutants that the checks must detect.
//!
//! All atomic accesses in this crate are sequentially consistent (the checks refuse other
//! orderings). The explored interleavings therefore cover all behavior of the hardware, except for
//! plain memory writes that a sender performs before its message, which pass through a modeled
//! store buffer (`store_buffer`).

#![expect(clippy::unwrap_used, reason = "a scenario whose setup fails must fail")]

extern crate std;

pub(crate) mod atomic;
mod candidates;
mod event_lpis;
mod listed_lpis;
mod machine;
mod model;
mod reports;
mod setlpir;
mod store_buffer;
mod wired_model;
mod work;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// Number of executions that [`explore`] tries with each scheduler. The number must be large enough
/// to detect every mutant.
const EXECUTIONS: usize = 5_000;

/// Explores random interleavings of `scenario`, and then the same number of interleavings with few
/// thread switches.
fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    run(RandomScheduler::new_from_seed(1, EXECUTIONS), scenario);
    run(PctScheduler::new_from_seed(2, 3, EXECUTIONS), scenario);
}

/// Explores `executions` random interleavings of `scenario`.
fn explore_random(executions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(RandomScheduler::new_from_seed(1, executions), scenario);
}

/// Explores every interleaving of `scenario`, and checks that at least `at_least` interleavings
/// exist.
fn explore_all(at_least: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let executions = run(DfsScheduler::new(None, false), scenario);
    assert!(executions >= at_least, "only {executions} executions, expected more");
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    config.failure_persistence = FailurePersistence::None;
    Runner::new(scheduler, config).run(move || {
        store_buffer::drain_all();
        scenario();
    })
}
