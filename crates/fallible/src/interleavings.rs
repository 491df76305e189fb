//! Checks of shared ownership under a scheduler that explores interleavings. Compiled with `--cfg
//! shuttle` alone; `cargo xtask test --only interleavings` runs them.
//!
//! A shared value is freed once, by its last owner. The file `interleavings/mutants.txt` has faults
//! that these checks must find.
#![expect(clippy::unwrap_used, reason = "a check fails where it unwraps")]

mod shared;

/// Random interleavings of each scenario.
const SCHEDULES: usize = 200_000;

fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
}
