//! Measures the figures of `docs/measurements.md` on this machine, which should be idle, and writes
//! them between the page's marks.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{command, process};
use doorbell_suites::figures::{self, write};
use doorbell_suites::instructions::{self, Record};
use doorbell_suites::size;

/// Program of the compared crate that needs another compiler, if it has been built.
const PEER: &str = "peers/arm-vgic/target/release/arm-vgic-peer";

/// Measures the figures of docs/measurements.md and writes them; the machine should be idle
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    let workspace = workspace::this()?;
    let bench = bench(workspace)?;
    let size = size::markdown(workspace)?;
    let counts = Record::measure(workspace)?.markdown();
    let page = figures::page(workspace);
    write(&page, "bench", &bench)?;
    write(&page, instructions::TABLE, &counts)?;
    write(&page, "size", &size)
}

fn bench(workspace: &Workspace) -> Result<String> {
    let command = command::build(workspace)?;
    let mut bench = process::command(&command.to_string_lossy(), &workspace.root);
    bench.args(["bench", "--markdown"]);
    let peer = workspace.root.join(PEER);
    if peer.exists() {
        bench.arg("--peer").arg(peer);
    }
    process::capture(&mut bench)
}
