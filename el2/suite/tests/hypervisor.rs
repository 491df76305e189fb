//! Hypervisor cases for every run. `--guests DIR` adds kvm-unit-tests' programs.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = env::args_os().collect();
    let cases = hypervisor_suite::cases(&mut arguments);
    doorbell_harness::suite::run(arguments, false, cases)
}
