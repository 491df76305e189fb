//! Checks GSIVs, which are INTIDs under ACPI (ACPI 6.6 §5.2.13).

use super::raw_tables::RawTables;
use crate::acpi::cpus::giccs;
use crate::acpi::fields::{Field, SMMU_V2_LISTS, SMMU_V3_GSIVS, gicc, msi_frame, pmcg, smmu_v2};
use crate::acpi::iort::{IortContents, IortNode};
use crate::acpi::madt::{MadtContents, MadtStructure};
use crate::acpi::names::node_name;
use crate::acpi::places::in_madt;
use crate::acpi::table::Fields;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::origin::Origin;
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

pub(super) fn check(
    madt: &[MadtStructure],
    nodes: &[IortNode<'_>],
    raw: RawTables<'_>,
    findings: &mut FindingList,
) {
    of_cpus(madt, raw, findings);
    let mut users: BTreeMap<u32, (usize, String)> = BTreeMap::new();
    for node in nodes {
        let wires = of_node(*node, raw.node(node));
        let wrong = wires.iter().find(|wire| !is_spi(wire.gsiv));
        if let Some(wire) = wrong {
            let place = node.origin(wire.item);
            let name = node_name(*node);
            let message = format!("{} of {name}: {}", wire.item, not_spi(wire.gsiv));
            findings.add(Rule::GsivClass, place, message);
        }
        shared(*node, &wires, &mut users, findings);
    }
    over_messages(madt, &users, findings);
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
fn of_node(node: IortNode<'_>, bytes: Fields<'_>) -> Vec<Wire> {
    let field = |field: Field| Some(Wire { item: field.name, gsiv: field.read(bytes)? });
    let wires: Vec<Wire> = match node.contents {
        IortContents::SmmuV3(_) => SMMU_V3_GSIVS.into_iter().filter_map(field).collect(),
        IortContents::Pmcg(_) => field(pmcg::OVERFLOW_GSIV).into_iter().collect(),
        IortContents::SmmuV2(_) => of_smmu_v2(bytes),
        _ => Vec::new(),
    };
    wires.into_iter().filter(|wire| wire.gsiv != 0).collect()
}

fn of_smmu_v2(bytes: Fields<'_>) -> Vec<Wire> {
    let mut wires = Vec::new();
    let word = |field: Field| field.read(bytes).unwrap_or(0usize);
    let mut list = |count, field: Field| {
        let rest = bytes.0.get(word(field)..).unwrap_or_default();
        for wire in rest.chunks_exact(WIRE_BYTES).take(count) {
            wires.extend(Fields(wire).u32(0).map(|gsiv| Wire { item: field.name, gsiv }));
        }
    };
    if word(smmu_v2::GLOBAL_INTERRUPTS) != 0 {
        // Skip the second global interrupt, which is that of the configuration access.
        list(1, smmu_v2::GLOBAL_INTERRUPTS);
    }
    for (count, field) in SMMU_V2_LISTS {
        list(word(count), field);
    }
    wires
}

/// Reports GSIVs of an SMMUv3 that an earlier node also has. SMMUv2s may share wires, because their
/// drivers allow it.
fn shared(
    node: IortNode<'_>,
    wires: &[Wire],
    users: &mut BTreeMap<u32, (usize, String)>,
    findings: &mut FindingList,
) {
    let may_share = !matches!(node.contents, IortContents::SmmuV3(_));
    for wire in wires {
        match users.entry(wire.gsiv) {
            Entry::Vacant(entry) => _ = entry.insert((node.offset, node_name(node))),
            Entry::Occupied(other) if other.get().0 != node.offset && !may_share => {
                let message = format!(
                    "GSIV {} of {} is also a wire of {}",
                    wire.gsiv,
                    node_name(node),
                    other.get().1
                );
                findings.add(Rule::SharedGsiv, node.origin(wire.item), message);
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// Reports MSI frames whose SPIs include a wired interrupt of an SMMU or a counter group.
fn over_messages(
    madt: &[MadtStructure],
    users: &BTreeMap<u32, (usize, String)>,
    findings: &mut FindingList,
) {
    for structure in madt {
        let MadtContents::MsiFrame(frame) = structure.contents else { continue };
        let Some((first, count)) = frame.spis else { continue };
        let (first, end) = (u32::from(first), u32::from(first) + u32::from(count));
        let Some((gsiv, (_, user))) = users.range(first..end).next() else { continue };
        let message = format!(
            "the MSI frame hands out INTIDs {first} to {}; INTID {gsiv} is a wire of {user}",
            end.saturating_sub(1)
        );
        let place = in_madt(structure.offset, msi_frame::SPI_BASE.name);
        findings.add(Rule::MsiOverWired, place, message);
    }
}

/// Checks the GSIVs of the CPUs. CPUs with the same wrong GSIV result in one finding.
fn of_cpus(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    let mut wrong: BTreeMap<(usize, u32), (usize, usize)> = BTreeMap::new();
    let mut twice: BTreeMap<(usize, usize, u32), (usize, usize)> = BTreeMap::new();
    for structure in madt {
        let MadtContents::Gicc(_) = structure.contents else { continue };
        let bytes = raw.structure(structure);
        let gsivs: Vec<(usize, u32)> = OF_CPUS
            .iter()
            .enumerate()
            .filter_map(|(index, (field, _))| Some((index, field.read(bytes)?)))
            .filter(|(_, gsiv)| *gsiv != 0)
            .collect();
        for (place, (index, gsiv)) in gsivs.iter().enumerate() {
            let may_be_spi = OF_CPUS.get(*index).is_some_and(|(_, may_be_spi)| *may_be_spi);
            let fits = is_ppi(*gsiv) || (may_be_spi && is_spi(*gsiv));
            if !fits {
                wrong.entry((*index, *gsiv)).or_insert((structure.offset, 0)).1 += 1;
            }
            let same = gsivs.iter().take(place).find(|(_, other)| other == gsiv);
            if let Some((other, _)) = same {
                twice.entry((*other, *index, *gsiv)).or_insert((structure.offset, 0)).1 += 1;
            }
        }
    }
    let cpus = giccs(madt).count();
    let name = |index: usize| OF_CPUS.get(index).map_or("", |(field, _)| field.name);
    let place = |offset, index| -> Origin { in_madt(offset, name(index)) };
    for ((index, gsiv), (offset, count)) in wrong {
        let message = format!("{} of {count} of {cpus} CPUs: {}", name(index), not_ppi(gsiv));
        findings.add(Rule::GsivClass, place(offset, index), message);
    }
    for ((one, other, gsiv), (offset, count)) in twice {
        let message = format!(
            "GSIV {gsiv} is both {} and {} of {count} of {cpus} CPUs",
            name(one),
            name(other)
        );
        findings.add(Rule::SharedGsiv, place(offset, other), message);
    }
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
