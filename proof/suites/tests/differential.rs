//! Compares the model with QEMU's GIC and ITS on the same random scripts.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use doorbell_harness::suite;
use doorbell_suites::differential::{self, Effort, LONG_CASES};

fn main() -> ExitCode {
    let long = Effort::long(LONG_CASES, Effort::SHORT.seed);
    suite::main(differential::cases(if suite::is_long() { long } else { Effort::SHORT }))
}
