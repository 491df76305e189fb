//! Hypervisor cases for every run.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    doorbell_harness::suite::main(hypervisor_suite::cases())
}
