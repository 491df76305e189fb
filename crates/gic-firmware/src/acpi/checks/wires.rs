//! Checks GSIVs, which are INTIDs under ACPI (ACPI 6.6 §5.2.13).

use super::Checks;
use crate::acpi::fields::{Field, SMMU_V2_LISTS, SMMU_V3_GSIVS, gicc, msi_frame, pmcg, smmu_v2};
use crate::acpi::iort::{IortNode, NodeKind};
use crate::acpi::madt::of_kind;
use crate::acpi::names::node_name;
use crate::acpi::places::in_madt;
use crate::acpi::table::Fields;
use crate::finding::Rule;
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
