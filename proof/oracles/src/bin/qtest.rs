//! Speaks QEMU's qtest protocol over the model: executes a script from standard input until the
//! input ends.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use doorbell_oracles::differential::{SecurityView, Server};
use std::io;

/// Speaks QEMU's qtest protocol over a GICv3 and ITS in the memory map of QEMU's `virt` machine
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of CPUs, and thus of redistributors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    cpus: u16,
    /// Give the script Non-secure access to a GIC with two security states
    #[arg(long)]
    non_secure: bool,
    /// Enable the CPU interfaces for interrupts of every group and priority. They start disabled,
    /// and the protocol cannot reach them
    #[arg(long)]
    unmask: bool,
}

fn main() -> Result<()> {
    let Arguments { cpus, non_secure, unmask } = Arguments::parse();
    let view = if non_secure { SecurityView::NonSecure } else { SecurityView::Single };
    let mut machine = Server::new(cpus, view)?;
    if unmask {
        machine.listen()?;
    }
    Ok(machine.serve(io::stdin().lock(), io::stdout().lock())?)
}
