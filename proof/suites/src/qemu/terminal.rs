//! Implements `cargo xtask qemu`: runs the bare-metal test bench on one of QEMU's machines, with
//! the output on the terminal.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use doorbell_harness::qemu::Version;
use doorbell_harness::testbench::Count;
use doorbell_harness::workspace;

use crate::qemu::bench::Bench;
use crate::qemu::cost::{self, Linux};
use crate::qemu::virt;

/// Number of interrupts of the load test if counting or tracing makes each interrupt slow.
const SMALL_LOAD: u32 = 1000;

/// Options of the program.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// Machine to run; without it, all machines are listed
    #[arg(long)]
    machine: Option<String>,
    /// QEMU to run it on
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
    /// Trace QEMU's ITS
    #[arg(long)]
    trace: bool,
    /// Count time in instructions, one nanosecond each (several CPUs need the QEMU of backports)
    #[arg(long)]
    icount: bool,
    /// Count the instructions of an interrupt, in the test bench and in Linux
    #[arg(long, conflicts_with_all = ["machine", "trace", "icount"])]
    cost: bool,
}

pub(crate) fn run(wanted: &Wanted) -> Result<ExitCode> {
    if wanted.cost {
        return compare(wanted.qemu);
    }
    let Some(name) = &wanted.machine else {
        for virt::Machine { name, options, cpu, cpus, .. } in all() {
            println!("{name:18} -M {options} -cpu {cpu} -smp {cpus}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let machine = all().find(|machine| machine.name == name);
    let machine = machine
        .with_context(|| format!("unknown machine `{name}`; `cargo xtask qemu` lists them"))?;
    // Counting and tracing are slow, so allow more time.
    let load = if wanted.icount || wanted.trace { SMALL_LOAD } else { machine.load };
    let mut more = Vec::new();
    if wanted.trace {
        more.extend(["-trace", "gicv3_its*"]);
    }
    if wanted.icount {
        more.extend(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    }
    let mut count = Count::default();
    Bench { machine, version: wanted.qemu, load }.run(&more, &mut |line| {
        println!("{line}");
        count.line(line);
    })?;
    Ok(if count.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all() -> impl Iterator<Item = &'static virt::Machine> {
    virt::ALL.iter().chain([&virt::IMX8MP])
}

/// Measures the costs of the test bench and of Linux on this machine, and prints both with the
/// recorded cost.
fn compare(version: Version) -> Result<ExitCode> {
    let linux = Linux::fetch(workspace::this()?)?;
    println!("{:16} {}", "the test bench:", cost::of_testbench(version)?);
    println!("{:16} {}", "Linux:", cost::of_linux(version, &linux)?);
    println!("{:16} {}, by {}", "on record:", cost::LINUX, linux.name);
    Ok(ExitCode::SUCCESS)
}
