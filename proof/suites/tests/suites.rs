//! The program of all suites.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    doorbell_suites::main()
}
