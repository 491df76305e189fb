//! The text of kernels that use one kind of MSI controller, built for size: each has a budget.

use crate::qemu::image;
use crate::step::Tally;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fs;

const HEAPLESS: &[&str] = &["--no-default-features"];

/// The kernels, the features that they are built with, and how many bytes of instructions each may
/// have: its drivers, the interrupt core, and the runtime that it shares with the others. The
/// first has a timer's interrupt alone, and little beside the runtime.
const BUDGETS: [(&str, &[&str], u64); 4] = [
    ("tick", HEAPLESS, 49_000),
    ("size-mbi", &[], 141_000),
    ("size-direct-lpi", &[], 154_000),
    ("size-its", &[], 176_000),
];

/// Builds and measures them.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for (name, features, budget) in BUDGETS {
        let elf = image::elf(workspace, "size", "minimal", name, features)?;
        let file = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let text = image::text_bytes(&file)?;
        println!("{name}: {text} bytes of {budget}");
        tally.case(name, within(text, budget));
    }
    Ok(())
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
