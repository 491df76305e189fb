//! Counts the instructions for which a CPU in the hypervisor does not look for interrupts, by a
//! plugin of QEMU. On several CPUs, virtual time doesn't show this, because QEMU runs them in turn.
//!
//! A CPU's turn ends at the next deadline of a timer. A network buffer has such a timer, even
//! without a network device. So turns are short, and a CPU that waits for another one
//! executes about as many instructions as the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use doorbell_harness::process;
use doorbell_harness::suite::{Absent, Shared};

use crate::built;
use crate::files::MACHINE_BYTES_BELOW;
use crate::output::Output;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/latency.c");

/// Maximum length of all CPUs' turns together, at one nanosecond per instruction.
const TURN: [&str; 4] = [
    "-netdev",
    "hubport,id=turns,hubid=0",
    "-object",
    "filter-buffer,id=turn,netdev=turns,interval=10",
];

/// Minimum number of times that each CPU must look for interrupts in a run.
const LOOKS: u64 = 1000;

/// Makes QEMU load the plugin.
pub(crate) fn counted(qemu: &mut Command) -> Result<()> {
    qemu.args(TURN).arg("-plugin").arg(plugin()?);
    Ok(())
}

fn plugin() -> Result<&'static Path> {
    static PLUGIN: Shared<PathBuf> = Shared::new();
    let plugin = PLUGIN.get(|| {
        if !process::exists("cc") {
            return Err(Absent::new("no C compiler").into());
        }
        let folder = built::folder()?;
        let plugin = folder.join("latency.so");
        let guests = format!("-DGUESTS={MACHINE_BYTES_BELOW}");
        let mut cc = process::command("cc", &folder);
        cc.args(["-shared", "-fPIC", "-O1", "-fvisibility=hidden", &guests, "-o"]).arg(&plugin);
        process::capture(cc.arg(SOURCE))?;
        Ok(plugin)
    });
    plugin.map(PathBuf::as_path)
}

/// Returns the counts in the plugin's report, and their CPUs. CPUs that hardly ever looked for
/// interrupts have none.
pub(crate) fn counts(output: &Output) -> impl Iterator<Item = (u64, String)> {
    output.lines.iter().filter_map(|line| {
        let (cpu, counts) = line.strip_suffix(" looks")?.split_once(": ")?;
        let (longest, looks) = counts.split_once(" instructions, ")?;
        let is_counted = looks.parse().is_ok_and(|looks: u64| looks >= LOOKS);
        Some((longest.parse().ok().filter(|_| is_counted)?, cpu.into()))
    })
}
