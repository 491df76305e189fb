//! Builds the browser inspector, and prints its path.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_harness::workspace;
use doorbell_suites::page;

/// Builds target/doorbell.html, which inspects firmware in a browser without a network
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    println!("{}", page::build(workspace::this()?)?.display());
    Ok(())
}
