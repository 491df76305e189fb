//! Hypervisor cases for every run. `--guests DIR` adds kvm-unit-tests' programs.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

use doorbell_harness::suite::{self, Turns};

fn main() -> ExitCode {
    let mut arguments = env::args_os().collect();
    let cases = hypervisor_suite::cases(&mut arguments);
    suite::run(arguments, Turns::Parallel, cases)
}
