//! Runs the random programs of `proof/soak`, built with optimization.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use doorbell_harness::workspace;
use doorbell_suites::soak;

fn main() -> Result<ExitCode> {
    let status = soak::program(workspace::this()?, true)?.args(env::args_os().skip(1)).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
