//! Writes the numbers of findings of `doorbell lint` in Debian's devicetrees and in published
//! firmware to `docs/findings.txt`, for review before they are committed.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_harness::workspace;
use doorbell_suites::boards::findings;

/// Writes the numbers of findings of `doorbell lint` in Debian's devicetrees to docs/findings.txt
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    findings::accept(workspace::this()?)
}
