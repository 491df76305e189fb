//! Recognizes PCI host bridges, and names the properties that route their functions' messages.

use super::tree::NodeRef;

pub(super) const MAP: &str = "msi-map";
pub(super) const PARENT: &str = "msi-parent";

/// Compatible strings of PCI hosts whose first register region is ECAM (as in Linux's
/// `pci-host-generic`).
pub(super) const ECAM_HOSTS: &[&str] = &[
    "marvell,armada8k-pcie-ecam",
    "pci-host-ecam-generic",
    ECAM_WITH_PORT_LOGIC,
    "snps,dw-pcie-ecam",
    "socionext,synquacer-pcie-ecam",
];

/// Compatible string of a DesignWare bridge that its firmware has initialized. The first function
/// of its ECAM is the root port, with the port logic (as in Linux's `pcie-qcom.c`).
pub(super) const ECAM_WITH_PORT_LOGIC: &str = "qcom,pcie-sa8255p";

/// Returns `true` if `node` is a PCI bridge that is not behind another PCI bridge.
pub(super) fn is_pci_host(node: NodeRef<'_, '_>) -> bool {
    is_pci_bridge(node) && !node.parent().is_some_and(is_pci_bridge)
}

pub(super) fn is_pci_bridge(node: NodeRef<'_, '_>) -> bool {
    matches!(node.text("device_type"), Some("pci" | "pciex")) || node.is_compatible(ECAM_HOSTS)
}
