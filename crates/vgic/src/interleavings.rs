//! Checks lock-free interactions between senders, commands and vCPUs under a scheduler that chooses
//! the interleavings. The checks are only compiled with `--cfg shuttle`; `cargo xtask test --only
//! interleavings` runs them.
//!
//! The checks show that no interrupt is lost, misplaced or late, and that no wake-up is missed. The
//! file `interleavings/mutants.txt` lists the mutants that the checks must detect.
//!
//! A check explores a part of the interleavings of its scenario:
//!
//! | checks | explored |
//! |---|---|
//! | those that call [`explore_all`] (`sharded_lock`, five in `candidates`) | every interleaving |
//! | those that call [`explore`] | a sample: 1,000 random interleavings, and 1,000 with few thread switches (PCT, depth 3); [`explore_more`] multiplies both |
//! | those that call [`explore_random`] (`model`, `arrivals`, `wired_model`, `completion`, `pausing`, one in `candidates`) | a sample: as many random interleavings as the call states |
//!
//! `cargo xtask test --long` multiplies the samples by ten ([`sample`]), and prints the
//! seed that it chooses for the schedulers, another one each time (`$SHUTTLE_RANDOM_SEED`).
//! Otherwise, a sample only changes when the code does. A sample shows nothing about the
//! interleavings outside of it; the mutants show which faults it is large enough to find.
//!
//! The scheduler switches threads at the primitives of [`sync`](crate::sync) alone, and executes
//! accesses in program order. See there for the reason why no other order has to be explored, and
//! for the accesses that this does not apply to. Plain memory writes that a sender performs before
//! its message pass through a modeled store buffer (`store_buffer`).

#![expect(clippy::unwrap_used, reason = "a scenario whose setup fails must fail")]

extern crate std;

mod arrivals;
pub(crate) mod atomic;
mod candidates;
mod completion;
mod departures;
mod event_lpis;
mod listed_lpis;
mod machine;
mod mappings;
mod model;
mod one_of_n;
mod pausing;
mod reports;
mod setlpir;
mod sharded_lock;
mod store_buffer;
mod wired_model;
mod work;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// Number of executions that [`explore`] tries with each scheduler. The number must be large enough
/// to detect every mutant.
const EXECUTIONS: usize = 1_000;

/// Explores random interleavings of `scenario`, and then the same number of interleavings with few
/// thread switches.
fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    explore_more(1, scenario);
}

/// Explores `times` as many interleavings as [`explore`].
fn explore_more(times: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let executions = sample(times * EXECUTIONS);
    run(RandomScheduler::new_from_seed(1, executions), scenario);
    run(PctScheduler::new_from_seed(2, 3, executions), scenario);
}

/// Explores `executions` random interleavings of `scenario`.
fn explore_random(executions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(RandomScheduler::new_from_seed(1, sample(executions)), scenario);
}

/// Returns the number of executions for a sample that has `executions` in an ordinary run.
fn sample(executions: usize) -> usize {
    if std::env::var_os("DOORBELL_LONG").is_some() { 10 * executions } else { executions }
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
