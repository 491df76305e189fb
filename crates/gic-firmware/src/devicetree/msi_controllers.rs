//! Reads MSI controllers (bindings `arm,gic-v3.yaml`, `arm,gic.yaml`, `msi-controller.yaml`).

use super::bridge_controllers;
use super::gic::{self, GicNodes};
use super::interrupt_tree::{self, CELLS, cell_count};
use super::tree::{NodeRef, Tree, bus_address, bus_regions, cells, required_regions};
use crate::controller::{Controller, ControllerIndex, ControllerKind, GicVersion, IntIdSpan};
use crate::finding::{Fact, FindingList, Region, Rule, Status};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;
use msi_types::MsiMessage;

/// Property that marks a GICv3 node whose redistributors accept messages without an ITS
/// (`docs/bindings`).
pub(super) const DIRECT_LPI: &str = "arm,direct-lpi";
/// Property that marks a node to which devices send messages.
const MARK: &str = "msi-controller";
/// Property that states the INTIDs of a GICv3's message-based SPIs.
const MBI_RANGES: &str = "mbi-ranges";
/// Property that states the number of cells after a reference to a controller.
pub(super) const MSI_CELLS: &str = "#msi-cells";
/// Compatible string of Broadcom's MIP.
pub(super) const MIP: &str = "brcm,bcm2712-mip";
/// Property with the data of a MIP's first message.
pub(super) const MIP_OFFSET: &str = "brcm,msi-offset";
pub(super) const PRE_ITS: &str = "socionext,synquacer-pre-its";
/// Size of an alias of the distributor, which is one frame.
pub(super) const ALIAS_BYTES: u64 = 0x1_0000;
/// Plausible maximum of `#msi-cells`; no binding defines more cells.
const MAX_MSI_CELLS: u32 = 8;

/// The MSI controllers of a tree, indexed by node.
#[derive(Default)]
pub(super) struct ControllerList {
    pub(super) list: Vec<Controller>,
    by_node: BTreeMap<usize, ControllerIndex>,
}

impl ControllerList {
    pub(super) fn read<'t, 'a>(
        tree: &'t Tree<'a>,
        gics: &GicNodes<'t, 'a>,
        findings: &mut FindingList,
    ) -> Self {
        let mut controllers = Self::default();
        for node in tree.nodes() {
            let controller = if let Some(kind) = bridge_controllers::kind(node) {
                bridge_controllers::read(tree, gics.root, node, kind)
            } else if let Some(kind) = kind(node, findings) {
                let secondary_gic = gics.secondary_of(node).map(NodeRef::id);
                Controller { secondary_gic, ..read(tree, node, kind, findings) }
            } else {
                continue;
            };
            let index = ControllerIndex::new(controllers.list.len());
            controllers.by_node.insert(node.index(), index);
            controllers.list.push(controller);
        }
        controllers.refuse_direct_lpi_beside_an_its(findings);
        controllers
    }

    /// Disables Direct LPI if there is an ITS: `GICR_SETLPIR` is IMPLEMENTATION DEFINED in a system
    /// with an ITS (IHI 0069 §12.11). A disabled node also describes an ITS that exists.
    fn refuse_direct_lpi_beside_an_its(&mut self, findings: &mut FindingList) {
        let is_its = |one: &&Controller| one.kind == ControllerKind::Its;
        let Some(its) = self.list.iter().find(is_its).map(|its| its.id.clone()) else { return };
        let is_direct = |one: &&mut Controller| {
            one.kind == ControllerKind::DirectLpi && one.status.is_enabled()
        };
        for direct in self.list.iter_mut().filter(is_direct) {
            let origin = direct.id.origin(DIRECT_LPI);
            findings.add(Rule::DirectLpiWithIts, origin.clone(), format!("{its} is an ITS"));
            direct.status = Fact::new(Status::Disabled, origin);
        }
    }

    pub(super) fn of_node(&self, node: NodeRef<'_, '_>) -> Option<ControllerIndex> {
        self.by_node.get(&node.index()).copied()
    }

    pub(super) fn get(&self, index: ControllerIndex) -> Option<&Controller> {
        self.list.get(index.get())
    }
}

/// Returns the kind of controller that `node` describes, if any.
fn kind(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<ControllerKind> {
    if node.is_compatible(&["arm,gic-v3-its"]) {
        return Some(ControllerKind::Its);
    }
    if node.is_compatible(&["arm,gic-v2m-frame"]) {
        return Some(ControllerKind::V2m);
    }
    if node.is_compatible(&[MIP]) {
        return Some(ControllerKind::Mip);
    }
    if gic::version(node) == Some(GicVersion::V3) {
        return gic_kind(node, findings);
    }
    if node.has(MARK) {
        return Some(ControllerKind::Other(String::from(
            node.text("compatible").unwrap_or(node.name()),
        )));
    }
    None
}

/// Returns the kind of a GICv3 node, and reports properties that belong to another kind.
fn gic_kind(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<ControllerKind> {
    let (direct, mbi) = (node.has(DIRECT_LPI), node.has(MBI_RANGES));
    let mut malformed = |property: &'static str, message: &str| {
        if node.has(property) {
            findings.add(Rule::MalformedProperty, node.origin(property), message);
        }
    };
    if !direct {
        malformed(MSI_CELLS, "a GICv3 has cells only with `arm,direct-lpi`");
        malformed("memory-region", "a GICv3 has memory for LPI tables only with `arm,direct-lpi`");
    } else if node.property(DIRECT_LPI).is_some_and(|value| !value.is_empty()) {
        malformed(DIRECT_LPI, "the property has no value");
    }
    match (direct, mbi) {
        (true, true) => {
            let message =
                format!("`{DIRECT_LPI}` and `{MBI_RANGES}` are both stated; both are ignored");
            findings.add(Rule::DirectLpiWithMbi, node.origin(DIRECT_LPI), message);
            None
        }
        (true, false) => Some(ControllerKind::DirectLpi),
        (false, true) => Some(ControllerKind::Mbi),
        (false, false) => {
            if node.has(MARK) {
                let message = format!("neither `{MBI_RANGES}` nor `{DIRECT_LPI}` is stated");
                findings.add(Rule::MsiControllerWithoutKind, node.origin(MARK), message);
            }
            None
        }
    }
}

fn read(
    tree: &Tree<'_>,
    node: NodeRef<'_, '_>,
    kind: ControllerKind,
    findings: &mut FindingList,
) -> Controller {
    let registers = match kind {
        ControllerKind::Its | ControllerKind::V2m => required_registers(node, findings),
        ControllerKind::Mbi => mbi_registers(node, findings),
        ControllerKind::DirectLpi => None,
        _ => super::tree::regions_if_any(node).into_iter().next(),
    };
    let ranges = match kind {
        ControllerKind::Mbi => mbi_ranges(node, findings),
        ControllerKind::V2m => v2m_range(node, findings).into_iter().collect(),
        ControllerKind::Mip => mip_range(tree, node, findings).into_iter().collect(),
        _ => Vec::new(),
    };
    let pre_its = if kind == ControllerKind::Its { pre_its(node, findings) } else { None };
    let status = status(node, findings);
    let msi_cells = msi_cells(node, findings);
    if kind == ControllerKind::DirectLpi && (!node.has(MSI_CELLS) || msi_cells.value != 0) {
        let message = "0 is expected, because DeviceIDs do not exist here";
        findings.add(Rule::MalformedProperty, node.origin(MSI_CELLS), message);
    }
    let message = if kind == ControllerKind::Mip { mip_message(node) } else { None };
    Controller {
        status,
        registers,
        ranges,
        message,
        msi_cells,
        coherence: gic::coherence(node),
        pre_its,
        ..Controller::new(node.id(), kind, None)
    }
}

/// Returns the status. A node without the `msi-controller` property counts as disabled, because
/// drivers ignore it.
fn status(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Fact<Status> {
    let status = node.status();
    if node.has(MARK) || !status.is_enabled() {
        return status;
    }
    findings.add(
        Rule::MissingMsiController,
        node.origin(MARK),
        "it is not marked as an MSI controller",
    );
    Fact::new(Status::Disabled, node.origin(MARK))
}

pub(super) fn msi_cells(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Fact<u32> {
    let stated = node.number(MSI_CELLS).unwrap_or(if node.has(MSI_CELLS) { u32::MAX } else { 0 });
    let origin = node.origin(MSI_CELLS);
    if stated > MAX_MSI_CELLS {
        findings.add(Rule::MalformedProperty, origin.clone(), "this is not a number of cells");
        return Fact::new(0, origin);
    }
    Fact::new(stated, origin)
}

fn required_registers(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<Region>> {
    const MISSING: &str = "the controller's registers are not stated";
    let first = required_regions(node, MISSING, findings).into_iter().next()??;
    if first.size() == 0 {
        findings.add(
            Rule::MalformedProperty,
            node.origin("reg"),
            "the controller's registers have size 0",
        );
        return None;
    }
    Some(first)
}

/// Returns the register frame that contains the MBI doorbells: the alias if the tree states one,
/// otherwise the distributor.
fn mbi_registers(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<Region>> {
    const ALIAS: &str = "mbi-alias";
    let Some(value) = node.property(ALIAS) else {
        // If the distributor's address is missing, the reader of the GIC has already reported it.
        return super::tree::regions_if_any(node).into_iter().next();
    };
    match bus_address(node, value) {
        Ok(base) => {
            Region::new(base, ALIAS_BYTES).map(|region| Fact::new(region, node.origin(ALIAS)))
        }
        Err(message) => {
            findings.add(Rule::MalformedProperty, node.origin(ALIAS), message);
            None
        }
    }
}

fn mbi_ranges(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Vec<Fact<IntIdSpan>> {
    let value = node.property(MBI_RANGES).unwrap_or_default();
    let Some(cells) =
        cells(value).filter(|cells| !cells.is_empty() && cells.len().is_multiple_of(2))
    else {
        let message = format!("{} bytes are not a list of (INTID, count) pairs", value.len());
        findings.add(Rule::MalformedProperty, node.origin(MBI_RANGES), message);
        return Vec::new();
    };
    let (pairs, _) = cells.as_chunks();
    pairs
        .iter()
        .filter_map(|&[first, count]| {
            let span = IntIdSpan::new(IntId::new(first), count).filter(|span| span.is_shared());
            if span.is_none() {
                let message = format!("{count} INTIDs from {first} on are not all SPIs");
                findings.add(Rule::MbiRange, node.origin(MBI_RANGES), message);
            }
            Some(Fact::new(span?, node.origin(MBI_RANGES)))
        })
        .collect()
}

/// Returns a v2m frame's range if both properties of the override are present and not zero. Without
/// the override, drivers read the range from the frame's `MSI_TYPER`.
fn v2m_range(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<IntIdSpan>> {
    const BASE: &str = "arm,msi-base-spi";
    const COUNT: &str = "arm,msi-num-spis";
    for (there, missing) in [(BASE, COUNT), (COUNT, BASE)] {
        if node.has(there) && !node.has(missing) {
            let message = format!("ignored without `{missing}`");
            findings.add(Rule::FrameRange, node.origin(there), message);
        }
    }
    let first = node.number(BASE).filter(|&first| first != 0)?;
    let count = node.number(COUNT).filter(|&count| count != 0)?;
    let span = IntIdSpan::new(IntId::new(first), count);
    if !span.is_some_and(IntIdSpan::is_shared) {
        let message = format!("{count} INTIDs from {first} on are not all SPIs");
        findings.add(Rule::FrameRange, node.origin(BASE), message);
    }
    Some(Fact::new(span?, node.origin(BASE)))
}

/// Returns a MIP's SPIs: the first entry of `msi-ranges`, without those that `brcm,msi-offset`
/// excludes.
fn mip_range(
    tree: &Tree<'_>,
    node: NodeRef<'_, '_>,
    findings: &mut FindingList,
) -> Option<Fact<IntIdSpan>> {
    const RANGES: &str = "msi-ranges";
    let words = node.property(RANGES).and_then(cells).unwrap_or_default();
    let span = words.split_first().and_then(|(&phandle, after)| {
        let (specifier, count) =
            after.split_at_checked(cell_count(tree.by_phandle(phandle)?, CELLS)?)?;
        let first = interrupt_tree::interrupt(specifier).ok()?.get();
        let first = first.checked_add(node.number(MIP_OFFSET).unwrap_or(0))?;
        IntIdSpan::new(IntId::new(first), *count.first()?).filter(|span| span.is_shared())
    });
    if span.is_none() {
        let message = "a GIC's SPI and a number of SPIs are expected";
        findings.add(Rule::MalformedProperty, node.origin(RANGES), message);
    }
    Some(Fact::new(span?, node.origin(RANGES)))
}

/// Returns the message of a MIP's first SPI. Its address is the second entry of `reg`, a PCI
/// address that is not translated.
fn mip_message(node: NodeRef<'_, '_>) -> Option<Fact<MsiMessage>> {
    let (address, _) = *bus_regions(node).ok()?.get(1)?;
    let data = node.number(MIP_OFFSET).unwrap_or(0);
    let message = MsiMessage { address: u64::try_from(address).ok()?, data };
    Some(Fact::new(message, node.origin("reg")))
}

/// Returns the pre-ITS window. Its address is a CPU address, because drivers do not translate it.
fn pre_its(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<Region>> {
    let value = node.property(PRE_ITS)?;
    let window = match cells(value).as_deref() {
        Some(&[base, size]) if size >= 4 => Region::new(base.into(), size.into()),
        _ => None,
    };
    if window.is_none() {
        findings.add(
            Rule::MalformedProperty,
            node.origin(PRE_ITS),
            "two cells are expected, address and size",
        );
    }
    Some(Fact::new(window?, node.origin(PRE_ITS)))
}
