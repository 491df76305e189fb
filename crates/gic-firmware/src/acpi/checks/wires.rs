//! Checks the stated lengths of tables and their structures, the number of IORT nodes, and GSIVs,
//! which are INTIDs under ACPI (ACPI 6.6 §5.2.13).

use super::Checks;
use crate::acpi::fields::{
    Field, SMMU_V2_LISTS, SMMU_V3_GSIVS, gicc, iort_header, its, iwb, madt_size, msi_frame,
    node_head, node_start, pmcg, smmu_v2,
};
use crate::acpi::iort::{Iort, IortNode, NodeKind};
use crate::acpi::madt::of_kind;
use crate::acpi::mcfg::Allocation;
use crate::acpi::names::node_name;
use crate::acpi::table::{Fields, Signature, Table, in_madt, origin};
use crate::acpi::table_set::TableSet;
use crate::finding::{FindingList, Rule};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use gic_arch::{IntId, IntIdClass};

/// INTIDs of the first SPI and of the first PPI.
const FIRST_SPI: u32 = 32;
const FIRST_PPI: u32 = 16;

/// Fields of a GICC that hold a GSIV, each with `true` if the GSIV may be an SPI.
const OF_CPUS: [(Field, bool); 4] = [
    (gicc::PERFORMANCE_GSIV, true),
    (gicc::MAINTENANCE_GSIV, false),
    (gicc::SPE_GSIV, false),
    (gicc::TRBE_GSIV, false),
];
/// Bytes per interrupt of an SMMUv2: GSIV and flags.
const WIRE_BYTES: usize = 8;

/// The first node with each GSIV: its offset and its name.
type Users = BTreeMap<u32, (usize, String)>;

impl Checks<'_, '_> {
    pub(super) fn wires(&mut self) {
        self.wires_of_cpus();
        let mut users = Users::new();
        for node in self.nodes {
            let wires = of_node(*node);
            if let Some(wire) = wires.iter().find(|wire| !is_spi(wire.gsiv)) {
                let message =
                    format!("{} of {}: {}", wire.item, node_name(*node), not_spi(wire.gsiv));
                self.findings.add(Rule::GsivClass, node.origin(wire.item), message);
            }
            self.shared(*node, &wires, &mut users);
        }
        self.over_messages(&users);
    }

    /// Reports GSIVs of an SMMUv3 that an earlier node also has. SMMUv2s may share wires, because
    /// their drivers allow it.
    fn shared(&mut self, node: IortNode<'_>, wires: &[Wire], users: &mut Users) {
        for wire in wires {
            match users.entry(wire.gsiv) {
                Entry::Vacant(entry) => _ = entry.insert((node.offset, node_name(node))),
                Entry::Occupied(other)
                    if other.get().0 != node.offset && node.kind == NodeKind::SmmuV3 =>
                {
                    let (name, other) = (node_name(node), &other.get().1);
                    let message = format!("GSIV {} of {name} is also a wire of {other}", wire.gsiv);
                    self.findings.add(Rule::SharedGsiv, node.origin(wire.item), message);
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Reports MSI frames whose SPIs include a wired interrupt of an SMMU or a counter group.
    fn over_messages(&mut self, users: &Users) {
        for frame in of_kind(self.madt, msi_frame::KIND) {
            let Some((first, count)) = frame.spis() else { continue };
            let end = first + count;
            let Some((gsiv, (_, user))) = users.range(first..end).next() else { continue };
            let message = format!(
                "the MSI frame hands out INTIDs {first} to {}; INTID {gsiv} is a wire of {user}",
                end.saturating_sub(1)
            );
            self.findings.add(Rule::MsiOverWired, frame.origin(msi_frame::SPI_BASE.name), message);
        }
    }

    /// Checks the GSIVs of the CPUs. CPUs with the same wrong GSIV result in one finding.
    fn wires_of_cpus(&mut self) {
        let mut wrong: BTreeMap<(usize, u32), (usize, usize)> = BTreeMap::new();
        let mut twice: BTreeMap<(usize, usize, u32), (usize, usize)> = BTreeMap::new();
        for cpu in of_kind(self.madt, gicc::KIND) {
            let gsivs: Vec<(usize, u32)> = OF_CPUS
                .iter()
                .enumerate()
                .map(|(index, (field, _))| (index, cpu.get(*field)))
                .filter(|(_, gsiv)| *gsiv != 0)
                .collect();
            for (place, (index, gsiv)) in gsivs.iter().enumerate() {
                let may_be_spi = OF_CPUS.get(*index).is_some_and(|(_, may_be_spi)| *may_be_spi);
                let fits = is_ppi(*gsiv) || (may_be_spi && is_spi(*gsiv));
                if !fits {
                    wrong.entry((*index, *gsiv)).or_insert((cpu.offset, 0)).1 += 1;
                }
                let same = gsivs.iter().take(place).find(|(_, other)| other == gsiv);
                if let Some((other, _)) = same {
                    twice.entry((*other, *index, *gsiv)).or_insert((cpu.offset, 0)).1 += 1;
                }
            }
        }
        let cpus = of_kind(self.madt, gicc::KIND).count();
        let name = |index: usize| OF_CPUS.get(index).map_or("", |(field, _)| field.name);
        for ((index, gsiv), (offset, count)) in wrong {
            let message = format!("{} of {count} of {cpus} CPUs: {}", name(index), not_ppi(gsiv));
            self.findings.add(Rule::GsivClass, in_madt(offset, name(index)), message);
        }
        for ((one, other, gsiv), (offset, count)) in twice {
            let message = format!(
                "GSIV {gsiv} is both {} and {} of {count} of {cpus} CPUs",
                name(one),
                name(other)
            );
            self.findings.add(Rule::SharedGsiv, in_madt(offset, name(other)), message);
        }
    }
}

fn is_spi(gsiv: u32) -> bool {
    IntId::new(gsiv).is_shared()
}

fn not_spi(gsiv: u32) -> String {
    let shown = IntId::new(gsiv).to_string();
    match gsiv.checked_add(FIRST_SPI).filter(|_| gsiv < FIRST_SPI) {
        Some(meant) => format!(
            "GSIV {gsiv} is {shown}, private to a CPU; if SPI number {gsiv} is meant, write {meant}"
        ),
        None => format!("GSIV {gsiv} is {shown}, but a device's wire is an SPI"),
    }
}

/// A wired interrupt of a node.
struct Wire {
    item: &'static str,
    gsiv: u32,
}

/// Returns the wired interrupts of an SMMU or a counter group. Omits GSIV 0, which means that the
/// interrupt is absent or sent as a message.
fn of_node(node: IortNode<'_>) -> Vec<Wire> {
    let wire = |field: Field| Wire { item: field.name, gsiv: node.get(field) };
    let wires = match node.kind {
        NodeKind::SmmuV3 => SMMU_V3_GSIVS.map(wire).into(),
        NodeKind::Pmcg => Vec::from([wire(pmcg::OVERFLOW_GSIV)]),
        NodeKind::SmmuV2 => of_smmu_v2(node),
        _ => Vec::new(),
    };
    wires.into_iter().filter(|wire| wire.gsiv != 0).collect()
}

fn of_smmu_v2(smmu: IortNode<'_>) -> Vec<Wire> {
    let mut wires = Vec::new();
    let mut list = |count, field: Field| {
        let rest = smmu.fields.0.get(smmu.get(field)..).unwrap_or_default();
        for wire in rest.chunks_exact(WIRE_BYTES).take(count) {
            wires.extend(Fields(wire).u32(0).map(|gsiv| Wire { item: field.name, gsiv }));
        }
    };
    if smmu.get::<u32>(smmu_v2::GLOBAL_INTERRUPTS) != 0 {
        // Skip the second global interrupt, which is that of the configuration access.
        list(1, smmu_v2::GLOBAL_INTERRUPTS);
    }
    for (count, field) in SMMU_V2_LISTS {
        list(smmu.get(count), field);
    }
    wires
}

fn is_ppi(gsiv: u32) -> bool {
    matches!(IntId::new(gsiv).class(), IntIdClass::Ppi | IntIdClass::ExtendedPpi)
}

fn not_ppi(gsiv: u32) -> String {
    let shown = IntId::new(gsiv).to_string();
    if gsiv < FIRST_PPI {
        let meant = gsiv + FIRST_PPI;
        return format!(
            "GSIV {gsiv} is {shown}, but the field holds an INTID: PPI number {gsiv} is {meant}"
        );
    }
    format!("GSIV {gsiv} is {shown}, but the interrupt is a PPI, INTID 16 to 31")
}

/// Offset of the first structure of a MADT.
const FIRST_STRUCTURE: usize = 44;
/// Highest type of a structure that ACPI 6.7 defines.
const LAST_TYPE: u8 = 31;

/// Reports lengths and node counts that do not match the contents of a table.
pub(in crate::acpi) fn check_extent(tables: &TableSet<'_>, findings: &mut FindingList) {
    madt_length(tables.madt.table(), findings);
    swallowed(tables.madt.table().bytes(), findings);
    if let Some(iort) = tables.iort {
        node_count(iort, findings);
    }
    if let Some(mcfg) = tables.mcfg {
        mcfg_length(mcfg.table(), findings);
    }
}

/// Returns the end of a sequence of MADT structures; `None` if one of them has an unknown type or
/// is too short.
fn structures_end(bytes: &[u8]) -> Option<usize> {
    let mut at = FIRST_STRUCTURE;
    while at < bytes.len() {
        let (kind, length) = (*bytes.get(at)?, usize::from(*bytes.get(at + 1)?));
        let least = madt_size(kind).unwrap_or(8);
        if kind > LAST_TYPE || length < least {
            return None;
        }
        at += length;
    }
    Some(at)
}

/// Reports a MADT whose structures continue after its stated end.
fn madt_length(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let goes_on = whole.len() > stated && structures_end(whole) == Some(whole.len());
    if goes_on {
        let message = format!(
            "the header states {stated} bytes, but structures continue to byte {}: those after \
             the stated end are not read",
            whole.len()
        );
        findings.add(Rule::TableLength, in_madt(4, "length"), message);
    }
}

/// Reports an MCFG whose allocations continue after its stated end.
fn mcfg_length(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let more = whole.get(stated..).unwrap_or_default();
    // An allocation has an aligned address, ordered buses, and four reserved bytes at its end.
    let last = whole.len().checked_sub(16);
    let last = last.and_then(|at| Allocation::read(at, Fields(whole.get(at..)?)));
    let is_one = whole.ends_with(&[0; 4])
        && last.is_some_and(|last| {
            let is_address = last.base != 0 && last.base.is_multiple_of(1 << 20);
            is_address && last.first_bus <= last.last_bus
        });
    if !more.is_empty() && (whole.len() - FIRST_STRUCTURE).is_multiple_of(16) && is_one {
        let message = format!(
            "the header states {stated} bytes, but allocations continue to byte {}",
            whole.len()
        );
        findings.add(Rule::TableLength, origin(Signature::MCFG, 4, "length"), message);
    }
}

/// Reports GIC structures whose stated length includes the next structure.
fn swallowed(bytes: &[u8], findings: &mut FindingList) {
    let mut at = FIRST_STRUCTURE;
    while let (Some(&kind), Some(&length)) = (bytes.get(at), bytes.get(at + 1)) {
        let length = usize::from(length);
        if length < 2 {
            return;
        }
        if let Some(size) = madt_size(kind).filter(|&size| size < length) {
            let inner = bytes.get(at + size..at + length).unwrap_or_default();
            let is_structure =
                inner.first().is_some_and(|kind| (gicc::KIND..=its::KIND).contains(kind));
            if is_structure && inner.get(1).map(|&length| usize::from(length)) == Some(inner.len())
            {
                let message = format!(
                    "a structure of type {kind} has {size} bytes, but states {length}, which \
                     hides the structure at {:#x}",
                    at + size
                );
                findings.add(Rule::MalformedTable, in_madt(at, "length"), message);
            }
        }
        at += length;
    }
}

/// Reports a node count that differs from the number of nodes in the table, and an impossible
/// offset of the first node.
fn node_count(iort: Iort<'_>, findings: &mut FindingList) {
    let (table, stated) = (iort.table(), iort.stated_nodes());
    let field = iort_header::FIRST_NODE;
    let first: u32 = field.read(table.fields()).unwrap_or_default();
    if stated > 0 && first < 48 {
        let message = format!("the first node cannot be at {first:#x}, within the header");
        let place = origin(Signature::IORT, field.at, field.name);
        return findings.add(Rule::IortNodeCount, place, message);
    }
    let Some(found) = nodes_to_end(iort) else { return };
    let message = match found.unstated {
        Some(node) if stated < found.count => format!(
            "the header states {stated} nodes, but the table has {}: {} at {:#x} is not read",
            found.count,
            node_name(node),
            node.offset
        ),
        _ if stated > found.count => {
            format!("the header states {stated} nodes, but the table has {}", found.count)
        }
        _ => return shorter_table(table, findings),
    };
    let place = origin(Signature::IORT, iort_header::NODES.at, iort_header::NODES.name);
    findings.add(Rule::IortNodeCount, place, message);
}

/// Reports a node that follows the stated end of the table.
fn shorter_table(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let Some(rest) = whole.get(stated..).filter(|rest| rest.len() >= 16) else { return };
    let rest = Fields(rest);
    let is_node = rest.u8(0) <= Some(iwb::KIND)
        && node_start::LENGTH.read(rest) == Some(rest.0.len())
        && node_head::REVISION.read(rest) <= Some(5u8);
    if is_node {
        let message = format!("the header states {stated} bytes, but a node follows them");
        findings.add(Rule::TableLength, origin(Signature::IORT, 4, "length"), message);
    }
}

/// The nodes up to the end of the table, regardless of the stated number of nodes.
struct FoundNodes<'a> {
    count: u32,
    /// First node beyond the stated number.
    unstated: Option<IortNode<'a>>,
}

/// Counts the nodes up to the end of the table; `None` if the table does not end with a node.
fn nodes_to_end(iort: Iort<'_>) -> Option<FoundNodes<'_>> {
    let mut found = FoundNodes { count: 0, unstated: None };
    let end = iort.table().bytes().len();
    let mut last = iort_header::FIRST_NODE.read(iort.table().fields())?;
    if last == end {
        return Some(found);
    }
    for node in iort.nodes_to_end() {
        let node = node.ok()?;
        if found.count == iort.stated_nodes() {
            found.unstated = Some(node);
        }
        found.count += 1;
        last = node.offset + node.fields.0.len();
        if last == end {
            return Some(found);
        }
    }
    (last == end).then_some(found)
}
