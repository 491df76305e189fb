//! Hypervisor cases that take longer.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

use doorbell_harness::suite::{self, Turns};

fn main() -> ExitCode {
    suite::run(env::args_os().collect(), Turns::Parallel, hypervisor_suite::long_cases())
}
