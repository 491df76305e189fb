//! Writes what `doorbell lint` finds in Debian's devicetrees to `docs/findings`, to be read before
//! it is committed.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_harness::workspace;
use doorbell_suites::boards::findings;

/// Writes what `doorbell lint` finds in Debian's devicetrees to docs/findings
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    findings::accept(workspace::this()?)
}
