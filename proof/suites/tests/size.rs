//! Checks the code size of kernels with one kind of MSI controller: it must be within budget, and
//! must not include code from other drivers.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use doorbell_harness::suite::{self, Case, Shared};
use doorbell_harness::workspace;
use doorbell_suites::size::{self, Measured};

/// Time limit of a case. The first case builds all kernels.
const LIMIT: Duration = Duration::from_mins(30);

fn main() -> ExitCode {
    let cases = size::kernels().flat_map(|kernel| {
        [
            case(kernel, kernel.into(), Measured::judge_size),
            case(kernel, format!("{kernel}: drivers"), Measured::judge_drivers),
        ]
    });
    suite::main(cases.collect())
}

fn case(kernel: &'static str, name: String, judge: fn(&Measured) -> Result<()>) -> Case {
    static ALL: Shared<Vec<Measured>> = Shared::new();
    Case::new(name, LIMIT, move || {
        let all = ALL.get(|| size::measure_all(workspace::this()?))?;
        let measured = all.iter().find(|measured| measured.name() == kernel);
        judge(measured.context("the kernel was not measured")?)
    })
}
