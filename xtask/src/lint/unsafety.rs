//! Restricts `unsafe` to the few files that have been audited for it.

use std::fs;
use std::path::Path;

use anyhow::Result;

use doorbell_harness::source;
use doorbell_harness::workspace::{Package, Workspace};

/// Files and folders that may contain `unsafe`. Each file must justify its `unsafe` code in the
/// comment at its top.
const AUDITED: &[&str] = &[
    "crates/fallible/src/shared.rs",
    "crates/irq-domain/src/irq/handler_cell.rs",
    "crates/irq-domain/src/pci/mapped_region.rs",
    "crates/gic-driver/src/mmio.rs",
    "crates/gic-driver/src/mmio",
    "crates/gic-driver/src/sysreg.rs",
    "crates/irq-routing/src/kvm/ioctl.rs",
    "crates/irq-routing/src/kvm/rust_vmm.rs",
    "proof/support/src/heap.rs",
    "sim/page/src/interface.rs",
    "crates/x86-irq/tests/kvm/machine.rs",
    "proof/oracles/kvm-judge/src/kvm.rs",
    "proof/oracles/kvm-judge/src/kvm",
    "el2/cpu",
    "el2/hostile",
    "el2/hypervisor/src/boot.rs",
    "el2/microbench",
    "el2/newcomer",
    "el2/one-vcpu",
    "el2/vm/src/gic.rs",
    "el2/vm/src/guest.rs",
    "el2/vm/src/hypervisor_timer.rs",
    "el2/vm/src/vcpu.rs",
    "images",
];

/// Attribute that the root of a package without an audited file must have.
const FORBIDDEN: &str = "#![forbid(unsafe_code)]";

/// Returns uses of `unsafe` outside the audited files, and packages that do not forbid it although
/// none of their files is audited.
pub(crate) fn check(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in package.rust_files()? {
        let shown = workspace.relative(&file);
        if AUDITED.iter().any(|audited| shown.starts_with(audited)) {
            continue;
        }
        let (text, shown) = (fs::read_to_string(&file)?, shown.display());
        for line in lines_with_unsafe(&text) {
            let what = "`unsafe` in a file that was not audited for it";
            findings.push(format!("{shown}:{line}: {what}"));
        }
        let is_audited = is_audited(workspace, package);
        if is_root(package, &file) && !is_audited && !text.contains(FORBIDDEN) {
            findings.push(format!("{shown}: no `{FORBIDDEN}`"));
        }
    }
    Ok(findings)
}

fn is_root(package: &Package, file: &Path) -> bool {
    package
        .targets
        .iter()
        .any(|target| target.source == file && matches!(&*target.kind, "lib" | "bin"))
}

fn is_audited(workspace: &Workspace, package: &Package) -> bool {
    AUDITED.iter().any(|audited| {
        let audited = workspace.root.join(audited);
        audited.starts_with(&package.folder) || package.folder.starts_with(audited)
    })
}

fn lines_with_unsafe(text: &str) -> Vec<usize> {
    let words = source::words(text).into_iter();
    words.filter(|(_, word)| word == "unsafe").map(|(line, _)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unsafe_keyword_is_found_in_code() {
        assert_eq!(lines_with_unsafe("fn f() {\n    unsafe { g() }\n}"), [2]);
    }
}
