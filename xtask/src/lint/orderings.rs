//! Checks that lock-free cores use sequentially consistent accesses. The model checks explore
//! interleavings but not reordering, so they wouldn't cover a weaker access.

use std::fs;

use anyhow::Result;

use doorbell_harness::source;
use doorbell_harness::workspace::Workspace;

/// Files and folders whose accesses a model check explores or represents.
const CHECKED: &[&str] = &[
    "crates/fallible/src/shared.rs",
    "crates/fallible/src/sync.rs",
    "crates/irq-domain/src/irq/handler_cell.rs",
    "crates/irq-domain/src/sync.rs",
    "crates/irq-routing/src",
    "crates/vgic/src",
];

/// Exceptions in these folders that are not part of a core: accesses to guest memory, and values
/// that only diagnostics read.
const OTHER: &[&str] =
    &["crates/vgic/src/monitor/rust_vmm.rs", "crates/vgic/src/sync/published.rs"];

/// Orderings that permit reordering of accesses.
const WEAKER: [&str; 4] = ["Relaxed", "Acquire", "Release", "AcqRel"];

/// Returns weaker orderings in the lock-free cores.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        for file in package.rust_files()? {
            let shown = workspace.relative(&file);
            let is_below =
                |folders: &[&str]| folders.iter().any(|folder| shown.starts_with(folder));
            if is_below(CHECKED) && !is_below(OTHER) {
                for (line, order) in weaker_orderings(&fs::read_to_string(&file)?) {
                    findings.push(format!(
                        "{}:{line}: `{order}`: no model check explores this ordering; use `SeqCst`",
                        shown.display()
                    ));
                }
            }
        }
    }
    Ok(findings)
}

fn weaker_orderings(text: &str) -> Vec<(usize, &'static str)> {
    let code = source::code_only(text);
    let found = |line: &str| {
        let mut words = line.split(|c: char| c != '_' && !c.is_alphanumeric());
        words.find_map(|word| WEAKER.into_iter().find(|order| *order == word))
    };
    (1..).zip(code.lines()).filter_map(|(number, line)| Some((number, found(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_orderings_are_found_in_code() {
        let text = "// Relaxed\nx.load(Ordering::Acquire);\nuse Ordering::{Relaxed, \
            SeqCst};\nx.load(SeqCst)";
        assert_eq!(weaker_orderings(text), [(2, "Acquire"), (3, "Relaxed")]);
    }
}
