//! The text of kernels that use one kind of MSI controller, built for size: each has a budget.

use crate::qemu::image;
use crate::step::Tally;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;

const HEAPLESS: &[&str] = &["--no-default-features"];

/// A kernel, and how many bytes of instructions it may have: its drivers, the interrupt core, and
/// the runtime that it shares with the others.
struct Kernel {
    name: &'static str,
    about: &'static str,
    features: &'static [&'static str],
    budget: u64,
}

/// The first has a timer's interrupt alone, and little beside the runtime.
const KERNELS: [Kernel; 4] = [
    Kernel { name: "tick", about: "without messages", features: HEAPLESS, budget: 49_000 },
    Kernel { name: "size-mbi", about: "only message-based SPIs", features: &[], budget: 141_000 },
    Kernel { name: "size-direct-lpi", about: "only direct LPIs", features: &[], budget: 154_000 },
    Kernel { name: "size-its", about: "only an ITS", features: &[], budget: 176_000 },
];

/// Builds and measures them.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for kernel in &KERNELS {
        let text = measure(workspace, kernel)?;
        println!("{}: {text} bytes of {}", kernel.name, kernel.budget);
        tally.case(kernel.name, within(text, kernel.budget));
    }
    Ok(())
}

/// The sizes as a table.
pub(crate) fn markdown(workspace: &Workspace) -> Result<String> {
    let mut table = String::from("| kernel | bytes of text |\n|---|---|\n");
    for kernel in &KERNELS {
        let text = measure(workspace, kernel)?;
        writeln!(table, "| `{}`, {} | {text} |", kernel.name, kernel.about)?;
    }
    Ok(table)
}

fn measure(workspace: &Workspace, kernel: &Kernel) -> Result<u64> {
    let elf = image::elf(workspace, "size", "minimal", kernel.name, kernel.features)?;
    let file = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    image::text_bytes(&file)
}

fn within(text: u64, budget: u64) -> Result<()> {
    ensure!(text <= budget, "{text} bytes of text, {} more than its budget", text - budget);
    ensure!(text > budget / 2, "{text} bytes of text: less than half of its budget of {budget}");
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn text_beyond_its_budget_fails() {
        assert!(within(100, 100).is_ok());
        assert!(within(101, 100).is_err());
        assert!(within(50, 100).is_err(), "a budget that says nothing");
    }
}
