//! Hypervisor cases that take longer.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    doorbell_harness::suite::run(
        std::env::args_os().collect(),
        false,
        hypervisor_suite::long_cases(),
    )
}
