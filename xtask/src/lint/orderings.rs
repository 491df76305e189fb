//! Checks that lock-free cores use sequentially consistent accesses. The model checks explore
//! interleavings but not reordering, so they wouldn't cover a weaker access.

use anyhow::Result;

use super::files;
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
    files::findings(workspace, &["rs"], |file, text| {
        let is_below = |folders: &[&str]| folders.iter().any(|folder| file.starts_with(folder));
        if is_below(CHECKED) && !is_below(OTHER) { weaker_orderings(text) } else { Vec::new() }
    })
}

fn weaker_orderings(text: &str) -> Vec<(usize, String)> {
    let words = source::words(text).into_iter();
    let weaker = words.filter(|(_, word)| WEAKER.contains(&word.as_str()));
    weaker
        .map(|(line, order)| {
            (line, format!("`{order}`: no model check explores this ordering; use `SeqCst`"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_orderings_are_found_in_code() {
        let text = "// Relaxed\nx.load(Ordering::Acquire);\nuse Ordering::{Relaxed, \
            SeqCst};\nx.load(SeqCst)";
        let found: Vec<_> = weaker_orderings(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [2, 3]);
    }
}
