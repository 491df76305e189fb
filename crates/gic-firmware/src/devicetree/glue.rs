//! Bits that Linux's drivers of DesignWare's host bridges set for iMSI-RX outside of its registers.
//! The step `boards` compares bits and offsets with the drivers' sources (`docs/registers.md`).

use super::address::{REGION_NAMES, regions_if_any};
use super::interrupt_tree::INTERRUPT_NAMES;
use super::tree::NodeRef;
use crate::controller::Controller;
use crate::origin::Fact;
#[cfg(feature = "write")]
use crate::region::Region;
#[cfg(feature = "write")]
use alloc::string::String;
use msi_types::pci::MsiGate;

/// Compatible string of a bridge without glue logic, which bridges of other drivers name last.
const PLAIN: &str = "snps,dw-pcie";
/// Bridges whose root port must have MSI Enable set.
const ROOT_PORT: &[&str] = &[
    "fsl,imx6q-pcie",
    "fsl,imx6qp-pcie",
    "fsl,imx6sx-pcie",
    "fsl,imx7d-pcie",
    "fsl,imx8mm-pcie",
    "fsl,imx8mq-pcie",
];
/// Bridges with enable bits in a register, and one line for all vectors.
const REGISTERS: &[GlueRegister] = &[
    GlueRegister {
        bridges: &["nvidia,tegra194-pcie", "nvidia,tegra234-pcie"],
        region: "appl",
        offset: 0x8,
        bits: 1 << 31 | 1 << 4,
    },
    GlueRegister {
        bridges: &["renesas,r8a779f0-pcie", "renesas,rcar-gen4-pcie"],
        region: "app",
        offset: 0x310,
        bits: 1 << 26,
    },
];

/// A register with enable bits, in a region that firmware names.
struct GlueRegister {
    bridges: &'static [&'static str],
    region: &'static str,
    offset: u64,
    bits: u32,
}

/// Completes the description of iMSI-RX. If firmware does not state the region of a register with
/// enable bits, the controller has no registers, and so no driver.
pub(super) fn complete(node: NodeRef<'_, '_>, controller: &mut Controller) {
    let register = REGISTERS.iter().find(|register| node.is_compatible(register.bridges));
    let is_split = node.strings(INTERRUPT_NAMES).any(|name| name == "msi0");
    let has_all_blocks = register.is_some() || node.text("compatible") == Some(PLAIN);
    controller.has_shared_line = has_all_blocks && !is_split;
    let gate = match register {
        Some(register) => register_gate(node, register),
        None if node.is_compatible(ROOT_PORT) => Some(MsiGate::RootPort),
        None => return,
    };
    if gate.is_none() {
        controller.registers = None;
    }
    controller.gate = gate.map(|gate| Fact::new(gate, node.origin("compatible")));
}

fn register_gate(node: NodeRef<'_, '_>, register: &GlueRegister) -> Option<MsiGate> {
    let place = node.strings(REGION_NAMES).position(|name| name == register.region)?;
    let region = regions_if_any(node).into_iter().nth(place)?;
    let address = region.base().checked_add(register.offset)?;
    Some(MsiGate::Register { address, bits: register.bits })
}

/// Returns the region of a gate for the node of a bridge with these compatible strings.
#[cfg(feature = "write")]
pub(super) fn region(
    compatible: &[String],
    gate: Option<MsiGate>,
) -> Option<(&'static str, Region)> {
    let Some(MsiGate::Register { address, .. }) = gate else { return None };
    let is_one_of = |names: &[&str]| compatible.iter().any(|name| names.contains(&name.as_str()));
    let register = REGISTERS.iter().find(|register| is_one_of(register.bridges))?;
    Some((register.region, Region::new(address.checked_sub(register.offset)?, 0x1000)?))
}
