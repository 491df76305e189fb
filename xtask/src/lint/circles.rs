//! Files of a package that use each other, directly or through others: none can be read first.

use anyhow::Result;

use crate::language::graph;
use crate::workspace::Workspace;

/// Packages whose files have floors: arrows run one way.
const LAYERED: &[&str] = &[
    "vgic",
    "vgic-kvm",
    "irq-domain",
    "gic-firmware",
    "doorbell-hardware",
    "doorbell-machine",
    "doorbell-qtest",
];

/// Returns the circles between files.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in workspace.packages.iter().filter(|package| LAYERED.contains(&&*package.name)) {
        for circle in graph::circles(package)? {
            findings.push(format!("{}: {} use each other", package.name, circle.join(", ")));
        }
    }
    Ok(findings)
}
