//! Checks of the lock-free parts under a scheduler that explores interleavings. Compiled with
//! `--cfg shuttle` alone; `cargo xtask test --only interleavings` runs them.
//!
//! A handler never runs beside itself nor after it was freed, and no message is lost. The
//! file `interleavings/mutants.txt` has faults that these checks must find.
#![expect(clippy::unwrap_used, reason = "a check fails where it unwraps")]

mod handler_cell;
mod shared_line;

/// Random interleavings of each scenario.
const SCHEDULES: usize = 200_000;

fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
}
