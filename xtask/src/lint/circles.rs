//! Files of a package that use each other, directly or through others: none can be read first.

use anyhow::Result;

use crate::language::graph;
use crate::workspace::Workspace;

/// Packages whose files have floors: arrows run one way.
pub(crate) const LAYERED: &[&str] = &["vgic", "vgic-kvm", "irq-domain", "gic-firmware"];

/// Returns the circles between files.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in LAYERED {
        for circle in graph::circles(workspace, package)? {
            findings.push(format!("{package}: {} use each other", circle.join(", ")));
        }
    }
    Ok(findings)
}
