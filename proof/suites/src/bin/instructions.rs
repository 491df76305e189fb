//! Counts the instructions of the hot paths, and writes them to `docs/measurements.md`.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_harness::workspace;
use doorbell_suites::figures;
use doorbell_suites::instructions::{Record, TABLE};

/// Counts the instructions of the hot paths and writes their budgets in docs/measurements.md
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    let workspace = workspace::this()?;
    let record = Record::measure(workspace)?;
    figures::write(&figures::page(workspace), TABLE, &record.markdown())
}
