//! Reads MSI controllers inside host bridges. A bridge uses its own controller if firmware states
//! neither `msi-map` nor `msi-parent` for it (as in Linux's `pcie-designware-host.c`).
//!
//! Some of Linux's drivers of DesignWare's host bridges set bits for iMSI-RX outside of its
//! registers. The step `boards` compares names, bits and offsets with the drivers' sources
//! (`docs/registers.md`).

use super::gic;
use super::interrupt_tree::{self, CELLS, EXTENDED, INTERRUPT_NAMES, INTERRUPTS, cell_count};
use super::tree::{NodeRef, REGION_NAMES, Tree, cells, regions_if_any};
use super::windows::{ECAM_WITH_PORT_LOGIC, MAP, PARENT, is_pci_host};
use crate::controller::{Controller, ControllerKind, WiredInterrupt};
use crate::finding::{Fact, Region};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::pci::MsiGate;

/// Compatible strings of MediaTek's bridges of the third generation.
const MEDIATEK_GEN3: &[&str] =
    &["airoha,en7581-pcie", "mediatek,mt8192-pcie", "mediatek,mt8196-pcie"];
/// Name of the region with DesignWare's port logic.
pub(super) const PORT_LOGIC: &str = "dbi";
/// Names of the same region, each with the prefix of the compatible strings of the bridges that
/// have it. Amlogic's older trees have the name of another region; `pcie-dbi` is Rockchip's own.
const PORT_LOGIC_NAMES: &[(&str, &str)] = &[
    ("elbi", "amlogic,"),
    ("regs", "fsl,ls"),
    ("ctrl", "marvell,armada8k-pcie"),
    ("dbics", "ti,am654-pcie"),
    ("rc-dbi", "hisilicon,"),
    ("pcie-dbi", "rockchip,"),
    (PORT_LOGIC, ""),
];
/// Bytes of the port logic of a bridge whose first region is ECAM, in which it is function 0.
const FUNCTION_BYTES: u64 = 0x1000;
/// Compatible strings of DesignWare bridges whose MSI lines are not connected.
const UNCONNECTED: &[&str] = &["samsung,exynos5433-pcie"];
/// Compatible strings of bridges with a controller for which no driver exists here. Some have
/// iMSI-RX, whose interrupt a register around it passes on.
const OTHERS: &[&str] = &[
    "airoha,an7583-pcie",
    "andestech,qilai-pcie",
    "aspeed,ast2600-pcie",
    "aspeed,ast2700-pcie",
    "fsl,lx2160a-pcie",
    "intel,keembay-pcie",
    "mbvl,gpex40-pcie",
    "mediatek,mt2701-pcie",
    "mediatek,mt2712-pcie",
    "mediatek,mt7622-pcie",
    "mediatek,mt7623-pcie",
    "mediatek,mt7629-pcie",
    "nvidia,tegra124-pcie",
    "nvidia,tegra186-pcie",
    "nvidia,tegra20-pcie",
    "nvidia,tegra210-pcie",
    "nvidia,tegra30-pcie",
    "renesas,pcie-r8a7779",
    "renesas,pcie-r8a7790",
    "renesas,pcie-r8a7791",
    "renesas,pcie-r8a7795",
    "renesas,pcie-rcar-gen2",
    "renesas,pcie-rcar-gen3",
    "renesas,r9a08g045-pcie",
    "renesas,r9a09g047-pcie",
    "sophgo,sg2044-pcie",
    "spacemit,k1-pcie",
    "st,spear1340-pcie",
    "ti,dra7-pcie",
    "ti,dra726-pcie-rc",
    "ti,dra746-pcie-rc",
    "ti,keystone-pcie",
    "xlnx,axi-pcie-host-1.00.a",
    "xlnx,qdma-host-3.00",
    "xlnx,xdma-host-3.00",
];
/// Most lines of one controller.
const LINES: u8 = 8;

/// Returns the kind of the controller that messages reach inside `node`, if it is a host bridge
/// that has one.
pub(super) fn kind(node: NodeRef<'_, '_>) -> Option<ControllerKind> {
    if !is_pci_host(node) || node.has(MAP) || node.has(PARENT) {
        return None;
    }
    if node.is_compatible(MEDIATEK_GEN3) {
        return Some(ControllerKind::MediatekGen3);
    }
    if node.is_compatible(OTHERS) {
        return node.text("compatible").map(|name| ControllerKind::Other(String::from(name)));
    }
    let is_connected = !node.is_compatible(UNCONNECTED);
    (is_connected && port_logic(node).is_some()).then_some(ControllerKind::ImsiRx)
}

/// Reads the controller inside a host bridge.
pub(super) fn read<'t, 'a>(
    tree: &'t Tree<'a>,
    root: Option<NodeRef<'t, 'a>>,
    node: NodeRef<'t, 'a>,
    kind: ControllerKind,
) -> Controller {
    let registers = match kind {
        ControllerKind::ImsiRx => port_logic(node),
        _ => regions_if_any(node).into_iter().next(),
    };
    let wired = |index| {
        let (parent, cells) = nth_interrupt(tree, node, index)?;
        let numbered = interrupt_tree::numbering(tree, parent)?;
        root.filter(|root| root.index() == numbered.index())?;
        interrupt_tree::wired(&cells)
    };
    let lines = line_indices(node, &kind);
    let lines: Option<Vec<WiredInterrupt>> = lines.into_iter().map(wired).collect();
    let origin = node.origin(if node.has(EXTENDED) { EXTENDED } else { INTERRUPTS });
    let with_origin = |line| Fact::new(line, origin.clone());
    let mut controller = Controller {
        status: node.status(),
        coherence: gic::coherence(node),
        registers,
        lines: lines.unwrap_or_default().into_iter().map(with_origin).collect(),
        ..Controller::new(node.id(), kind, None)
    };
    if controller.kind == ControllerKind::ImsiRx {
        complete(node, &mut controller);
    }
    controller
}

fn port_logic(node: NodeRef<'_, '_>) -> Option<Fact<Region>> {
    let mut regions = regions_if_any(node).into_iter();
    if node.is_compatible(&[ECAM_WITH_PORT_LOGIC]) {
        let first = regions.next()?;
        let port = Region::new(first.base(), FUNCTION_BYTES.min(first.size()))?;
        return Some(Fact::new(port, first.origin));
    }
    let is_of = |prefix: &str| node.strings("compatible").any(|name| name.starts_with(prefix));
    let place = PORT_LOGIC_NAMES.iter().find_map(|(name, prefix)| {
        node.strings(REGION_NAMES).position(|one| one == *name).filter(|_| is_of(prefix))
    })?;
    regions.nth(place)
}

/// Returns the positions of the controller's lines among the node's interrupts.
fn line_indices(node: NodeRef<'_, '_>, kind: &ControllerKind) -> Vec<usize> {
    let named = |wanted: &str| node.strings(INTERRUPT_NAMES).position(|name| name == wanted);
    match kind {
        ControllerKind::ImsiRx => {
            let numbered: Vec<_> =
                (0..LINES).map_while(|number| named(&format!("msi{number}"))).collect();
            if numbered.is_empty() { [named("msi").unwrap_or(0)].into() } else { numbered }
        }
        ControllerKind::MediatekGen3 => [0].into(),
        _ => Vec::new(),
    }
}

/// Returns the controller and the specifier of the node's interrupt at this position.
fn nth_interrupt<'t, 'a>(
    tree: &'t Tree<'a>,
    node: NodeRef<'t, 'a>,
    index: usize,
) -> Option<(NodeRef<'t, 'a>, Vec<u32>)> {
    let Some(value) = node.property(EXTENDED) else {
        let parent = interrupt_tree::parent(tree, node)?;
        let words = cells(node.property(INTERRUPTS)?)?;
        let specifier = words.chunks_exact(cell_count(parent, CELLS)?.max(1)).nth(index)?;
        return Some((parent, specifier.to_vec()));
    };
    let words = cells(value)?;
    let mut rest = words.as_slice();
    for _ in 0..index {
        let (&phandle, after) = rest.split_first()?;
        rest = after.get(cell_count(tree.by_phandle(phandle)?, CELLS)?..)?;
    }
    let (&phandle, after) = rest.split_first()?;
    let parent = tree.by_phandle(phandle)?;
    Some((parent, after.get(..cell_count(parent, CELLS)?)?.to_vec()))
}

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
