//! Hypervisor cases that take longer.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    doorbell_harness::suite::main(hypervisor_suite::long_cases())
}
