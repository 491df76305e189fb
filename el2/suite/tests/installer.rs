//! Runs Debian's installer on the hypervisor.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    doorbell_harness::suite::main(hypervisor_suite::installer_cases())
}
