//! Checks the orderings of atomic accesses. The model checks of lock-free cores explore
//! interleavings but not reordering, so cores must use sequentially consistent accesses. Other code
//! may use a weaker ordering if a comment `// Ordering: …` above it, in the same function, states
//! why.

use std::path::Path;

use doorbell_harness::source;

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

/// Folders in which a comment must justify a weaker access, apart from [`CHECKED`].
const JUSTIFIED: &[&str] = &[
    "crates/gic-driver/src",
    "crates/hyperv-vpci/src",
    "crates/irq-domain/src",
    "crates/x86-irq/src",
];

/// Orderings that permit reordering of accesses.
const WEAKER: [&str; 4] = ["Relaxed", "Acquire", "Release", "AcqRel"];

/// Beginning of a comment that justifies the weaker orderings below it.
const REASON: &str = "// Ordering: ";

/// Returns weaker orderings in the lock-free cores, and those without a reason in other code.
pub(crate) fn check(file: &Path, text: &str) -> Vec<(usize, String)> {
    let is_below = |folders: &[&str]| folders.iter().any(|folder| file.starts_with(folder));
    let message = if is_below(OTHER) {
        return Vec::new();
    } else if is_below(CHECKED) {
        "no model check explores this ordering; use `SeqCst`"
    } else if is_below(JUSTIFIED) {
        "neither `SeqCst` nor justified by a comment `// Ordering: …` above"
    } else {
        return Vec::new();
    };
    let mut weaker = weaker_orderings(text);
    if !is_below(CHECKED) {
        weaker.retain(|(line, _)| !is_justified(text, *line));
    }
    let findings = weaker.into_iter();
    findings.map(|(line, order)| (line, format!("`{order}`: {message}"))).collect()
}

fn weaker_orderings(text: &str) -> Vec<(usize, String)> {
    let words = source::words(text).into_iter();
    words.filter(|(_, word)| WEAKER.contains(&word.as_str())).collect()
}

/// Returns `true` if a comment between the beginning of the function and `line` justifies the
/// ordering.
fn is_justified(text: &str, line: usize) -> bool {
    let lines: Vec<_> = text.lines().take(line).map(str::trim_start).collect();
    let above = lines.iter().rev().take_while(|line| !is_function(line));
    above.into_iter().any(|line| line.starts_with(REASON))
}

fn is_function(line: &str) -> bool {
    !line.starts_with("//") && source::words(line).iter().any(|(_, word)| word == "fn")
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

    #[test]
    fn a_reason_justifies_orderings_only_in_its_function() {
        let text = "fn f() {\n    // Ordering: a counter.\n    x.load(Relaxed);\n}\n\n\
            fn g() {\n    x.load(Relaxed);\n    // Ordering: too late.\n}\n";
        assert!(is_justified(text, 3));
        assert!(!is_justified(text, 7));
        assert!(!is_justified("// Ordering: of nothing.\nfn f() {\nx.load(Relaxed);\n}\n", 3));
    }
}
