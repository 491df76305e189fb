//! Checks of the lock-free parts under a scheduler that chooses interleavings: senders, commands
//! and vCPUs. Compiled with `--cfg shuttle` alone; `cargo xtask test --only interleavings` runs
//! them.
//!
//! No interrupt is lost, misplaced or late, and no wake-up is missed. The file
//! `interleavings/mutants.txt` has faults that these checks must find.
//!
//! Executions are sequentially consistent, and so is every access (others are refused here), so
//! what is explored is what can happen on hardware. What a sender wrote to plain memory before its
//! message is not: that store buffer is modelled beside it (`store_buffer`).

#![expect(clippy::unwrap_used, reason = "a scenario that cannot be set up has failed")]

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

/// Executions of each kind that [`explore`] tries. Each fault is found within as many.
const EXECUTIONS: usize = 5_000;

/// Explores random interleavings of `scenario`, and as many with few switches between threads.
fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    run(RandomScheduler::new_from_seed(1, EXECUTIONS), scenario);
    run(PctScheduler::new_from_seed(2, 3, EXECUTIONS), scenario);
}

/// Explores so many random interleavings of `scenario`.
fn explore_random(executions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(RandomScheduler::new_from_seed(1, executions), scenario);
}

/// Explores every interleaving of `scenario`, of which there must be at least so many.
fn explore_all(at_least: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let executions = run(DfsScheduler::new(None, false), scenario);
    assert!(executions >= at_least, "only {executions} executions: what is explored?");
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
