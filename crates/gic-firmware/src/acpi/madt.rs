//! The MADT, which describes CPUs, the GIC and its MSI controllers (ACPI 6.5 §5.2.12), and the PPTT,
//! which groups the CPUs into packages and clusters (§5.2.30).

use super::fields::{Field, gicc, gicd, gicr, its, msi_frame, structure_head};
use super::table::{Fields, Signature, Table, TableError, TableErrorKind, in_madt, madt_id};
use crate::controller::Coherence;
use crate::description::CpuNode;
use crate::finding::{Fact, FindingList, NodeId, Origin, Rule, Status};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::Affinity;

/// Offset of the first structure, after the header, the local interrupt controller address and
/// flags.
const FIRST_STRUCTURE: usize = 44;
/// Mask of the affinity fields Aff3 and Aff2–0 in `MPIDR_EL1`.
const AFFINITY_BITS: u64 = 0xff_00ff_ffff;
/// Flag of a GICC: the operating system may use the CPU at boot.
const ENABLED: u64 = 1;
/// Flag of a GICC: the CPU may be brought online later (ACPI 6.5).
const ONLINE_CAPABLE: u64 = 1 << 3;
/// Flag of a GICC: the table accesses of the CPU's redistributor bypass the caches (ACPI 6.6).
const REDISTRIBUTOR_NON_COHERENT: u64 = 1 << 4;
/// Flag of a GICR or an ITS: its table accesses bypass the CPUs' caches (ACPI 6.6).
const NON_COHERENT: u64 = 1;
/// Flag of an MSI frame: the structure's SPIs override the frame's `MSI_TYPER`.
const OVERRIDES_TYPER: u64 = 1;

/// A Multiple APIC Description Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Madt<'a>(Table<'a>);

impl<'a> Madt<'a> {
    /// Reads `table` as a MADT.
    ///
    /// # Errors
    ///
    /// Returns an error if `table` is not a MADT.
    pub fn new(table: Table<'a>) -> Result<Self, TableError> {
        table.expect(Signature::MADT).map(Self)
    }

    /// Returns the table with its header.
    pub const fn table(self) -> Table<'a> {
        self.0
    }

    /// Returns the structures in order. If an error makes the offset of the next structure unknown,
    /// the iterator ends after the error.
    pub(super) fn structures(self) -> impl Iterator<Item = Result<MadtStructure<'a>, TableError>> {
        let mut at = FIRST_STRUCTURE;
        core::iter::from_fn(move || {
            let offset = at;
            let rest = self.0.bytes().get(offset..).filter(|rest| !rest.is_empty())?;
            let length = structure_head::LENGTH.read(Fields(rest)).unwrap_or(rest.len());
            let structure = rest.get(..length).filter(|structure| structure.len() >= 2);
            let Some((fields, &kind)) = structure.and_then(|bytes| Some((bytes, bytes.first()?)))
            else {
                at = self.0.bytes().len();
                return Some(Err(self.0.error(offset, TableErrorKind::StructureLength(length))));
            };
            at = offset.saturating_add(length);
            let structure = MadtStructure { offset, kind, fields: Fields(fields) };
            let short = TableErrorKind::ShortStructure { kind, length };
            Some(structure.is_whole().then_some(structure).ok_or(self.0.error(offset, short)))
        })
    }
}

/// A structure of a MADT. Its fields are read in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct MadtStructure<'a> {
    /// Offset in bytes from the start of the table.
    pub(super) offset: usize,
    /// Type of the structure, e.g. [`gicc::KIND`].
    pub(super) kind: u8,
    pub(super) fields: Fields<'a>,
}

impl MadtStructure<'_> {
    /// Returns `true` unless the structure ends before a field that its type always has.
    fn is_whole(self) -> bool {
        let last = match self.kind {
            // ACPI 5.0 lacks the virtualization fields, the redistributor's address and the MPIDR.
            gicc::KIND if self.fields.0.len() == usize::from(gicc::LAYOUT.first) => gicc::BASE,
            gicc::KIND => gicc::MPIDR,
            gicd::KIND => gicd::VERSION,
            msi_frame::KIND => msi_frame::SPI_BASE,
            gicr::KIND => gicr::LENGTH,
            its::KIND => its::BASE,
            _ => return true,
        };
        last.read::<u64>(self.fields).is_some()
    }

    /// Returns the value of a field; zero if the structure ends before it.
    pub(super) fn get<T: TryFrom<u64> + Default>(self, field: Field) -> T {
        field.read(self.fields).unwrap_or_default()
    }

    fn has(self, flags: Field, flag: u64) -> bool {
        self.get::<u64>(flags) & flag != 0
    }

    /// Returns the origin of `item` in this structure.
    pub(super) fn origin(self, item: &'static str) -> Origin {
        in_madt(self.offset, item)
    }

    /// Returns `true` for a structure of a GIC before GICv5.
    pub(super) const fn is_gic(self) -> bool {
        matches!(self.kind, gicc::KIND..=its::KIND)
    }

    /// Returns `true` if the operating system may use a GICC's CPU at boot.
    pub(super) fn is_enabled(self) -> bool {
        self.has(gicc::FLAGS, ENABLED)
    }

    /// Returns `true` if a GICC's CPU may be brought online later.
    pub(super) fn is_online_capable(self) -> bool {
        self.has(gicc::FLAGS, ONLINE_CAPABLE)
    }

    /// Returns `true` if a GICC's CPU may be used, at boot or later.
    pub(super) fn is_usable(self) -> bool {
        self.is_enabled() || self.is_online_capable()
    }

    /// Returns the address of a GICC's redistributor; `None` if the GICC states none, e.g. because
    /// a GICR structure describes it.
    pub(super) fn redistributor(self) -> Option<u64> {
        let base = gicc::REDISTRIBUTOR.read(self.fields);
        base.filter(|&base| self.kind == gicc::KIND && base != 0)
    }

    /// Returns the coherence of the table accesses of a GICC's redistributor, of a GICR's
    /// redistributors, or of an ITS.
    pub(super) fn coherence(self) -> Coherence {
        let bypasses_caches = match self.kind {
            gicc::KIND => self.has(gicc::FLAGS, REDISTRIBUTOR_NON_COHERENT),
            gicr::KIND => self.has(gicr::FLAGS, NON_COHERENT),
            _ => self.has(its::FLAGS, NON_COHERENT),
        };
        if bypasses_caches { Coherence::NonCoherent } else { Coherence::ByRegister }
    }

    /// Returns the first SPI of an MSI frame and the number of its SPIs, if the structure states
    /// them.
    pub(super) fn spis(self) -> Option<(u32, u32)> {
        let spis = (self.get(msi_frame::SPI_BASE), self.get(msi_frame::SPI_COUNT));
        self.has(msi_frame::FLAGS, OVERRIDES_TYPER).then_some(spis)
    }

    /// Returns the name of a structure of GICv5 (ACPI 6.7), which is a different architecture.
    pub(super) const fn gicv5(self) -> Option<&'static str> {
        match self.kind {
            28 => Some("IRS"),
            29 => Some("ITS configuration frame"),
            30 => Some("ITS translate frame"),
            _ => None,
        }
    }
}

/// Returns the structures of this type.
pub(super) fn of_kind<'m, 'a>(
    madt: &'m [MadtStructure<'a>],
    kind: u8,
) -> impl Iterator<Item = MadtStructure<'a>> + Clone + use<'m, 'a> {
    madt.iter().copied().filter(move |structure| structure.kind == kind)
}

/// Reads the CPUs. A CPU that is absent at boot and may be brought online later counts as disabled.
pub(super) fn cpus(madt: &[MadtStructure<'_>], findings: &mut FindingList) -> Vec<CpuNode> {
    let mut known = BTreeSet::new();
    let mut cpus = Vec::new();
    for gicc in of_kind(madt, gicc::KIND) {
        let place = gicc.origin("MPIDR");
        let Some(mpidr) = gicc::MPIDR.read::<u64>(gicc.fields) else {
            let message = "a GICC of ACPI 5.0 does not state its CPU's affinity";
            findings.add(Rule::MissingProperty, place, message);
            continue;
        };
        if mpidr & !AFFINITY_BITS != 0 {
            let message = format!("{mpidr:#x} is not an affinity of MPIDR_EL1");
            findings.add(Rule::MalformedProperty, place, message);
            continue;
        }
        let affinity = Affinity::from_mpidr(mpidr);
        if !known.insert(affinity) {
            let message = format!("an earlier CPU also has affinity {affinity}");
            findings.add(Rule::DuplicateAffinity, place, message);
            continue;
        }
        let status = if gicc.is_enabled() { Status::Enabled } else { Status::Disabled };
        cpus.push(CpuNode {
            id: madt_id("GICC", gicc.get(gicc::UID)),
            affinity: Fact::new(affinity, place),
            status: Fact::new(status, gicc.origin("flags")),
        });
    }
    cpus
}

/// Offset of the first structure, after the header.
const FIRST_NODE: usize = 36;
/// Type of a processor hierarchy node, and its length without its private resources.
const HIERARCHY_NODE: u8 = 0;
const HIERARCHY_NODE_BYTES: usize = 20;
/// Flags of a processor hierarchy node.
const PACKAGE: u32 = 1 << 0;
const ID_VALID: u32 = 1 << 1;
const THREAD: u32 = 1 << 2;
const LEAF: u32 = 1 << 3;
/// Maximum number of levels above a CPU that are read. Longer paths, such as loops, end there.
const MAX_LEVELS: usize = 16;

/// A processor hierarchy node.
#[derive(Clone, Copy)]
struct Processor {
    flags: u32,
    /// Offset of the parent in the table; 0 if it has none.
    parent: u32,
    uid: u32,
    /// Position among the children of its parent that contain CPUs.
    number: u32,
}

impl Processor {
    const fn is(self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Returns the packages and clusters that contain each CPU of a PPTT, outermost first. A name
/// consists of the kind and the position within the parent, e.g. `package 0` and `cluster 1`.
///
/// A CPU has the name of the GICC with the same UID in the MADT. Structures that are too short for
/// their fields are skipped; a structure without a valid length ends the table.
///
/// # Errors
///
/// Returns an error if `table` is not a PPTT.
pub fn cpu_clusters(table: Table<'_>) -> Result<BTreeMap<NodeId, Vec<String>>, TableError> {
    let nodes = processors(table.expect(Signature::PPTT)?);
    let cpus = nodes.values().filter(|node| node.is(LEAF) && node.is(ID_VALID));
    Ok(cpus.map(|cpu| (madt_id("GICC", cpu.uid), clusters(&nodes, *cpu))).collect())
}

/// Returns the hierarchy nodes by their offsets.
fn processors(table: Table<'_>) -> BTreeMap<u32, Processor> {
    let mut nodes = BTreeMap::new();
    let mut counts: BTreeMap<(u32, bool), u32> = BTreeMap::new();
    let mut at = FIRST_NODE;
    while let Some(rest) = table.bytes().get(at..)
        && let Some(length) = Fields(rest).u8(1).map(usize::from).filter(|&length| length >= 2)
    {
        let fields = Fields(rest.get(..length).unwrap_or_default());
        if fields.u8(0) == Some(HIERARCHY_NODE)
            && fields.slice(0, HIERARCHY_NODE_BYTES).is_some()
            && let (Some(flags), Some(parent), Some(uid)) =
                (fields.u32(4), fields.u32(8), fields.u32(12))
            && let Ok(offset) = u32::try_from(at)
        {
            let count = counts.entry((parent, flags & LEAF == 0)).or_default();
            nodes.insert(offset, Processor { flags, parent, uid, number: *count });
            *count += 1;
        }
        at += length;
    }
    nodes
}

/// Returns the packages and clusters above a CPU. The core above a thread is not a cluster.
fn clusters(nodes: &BTreeMap<u32, Processor>, cpu: Processor) -> Vec<String> {
    let above = core::iter::successors(nodes.get(&cpu.parent), |node| nodes.get(&node.parent));
    let skipped = usize::from(cpu.is(THREAD));
    let name = |node: &Processor| {
        let kind = if node.is(PACKAGE) { "package" } else { "cluster" };
        format!("{kind} {}", node.number)
    };
    let mut names: Vec<_> = above.take(MAX_LEVELS).skip(skipped).map(name).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a table with these nodes, given as (flags, position of the parent, UID).
    fn table(nodes: &[(u32, Option<u32>, u32)]) -> Vec<u8> {
        let mut bytes = b"PPTT".to_vec();
        bytes.resize(FIRST_NODE, 0);
        for &(flags, parent, uid) in nodes {
            let parent = parent.map_or(0, |place| 36 + 20 * place);
            bytes.extend([HIERARCHY_NODE, 20, 0, 0]);
            for field in [flags, parent, uid, 0] {
                bytes.extend(field.to_le_bytes());
            }
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let clusters = cpu_clusters(Table::new(bytes).unwrap()).unwrap();
        clusters.iter().map(|(cpu, path)| format!("{cpu}: {}", path.join(", "))).collect()
    }

    #[test]
    fn pptt_places_cpus_in_clusters_and_packages() {
        let core = ID_VALID | LEAF;
        let bytes = table(&[
            (PACKAGE, None, 0),
            (PACKAGE, None, 0),
            (0, Some(1), 0),
            (0, Some(1), 0),
            (core, Some(3), 7),
            (core, Some(0), 9),
        ]);
        let expected = ["MADT/GICC@7: package 1, cluster 1", "MADT/GICC@9: package 0"];
        assert_eq!(names(&bytes), expected);
    }

    #[test]
    fn a_core_with_threads_is_not_a_cluster() {
        let thread = ID_VALID | LEAF | THREAD;
        let bytes = table(&[(PACKAGE, None, 0), (0, Some(0), 0), (thread, Some(1), 3)]);
        assert_eq!(names(&bytes), ["MADT/GICC@3: package 0"]);
    }

    #[test]
    fn pptt_walk_terminates_on_loops_and_zero_length_structures() {
        let mut bytes = table(&[(0, Some(1), 0), (0, Some(0), 0), (LEAF | ID_VALID, Some(0), 1)]);
        assert_eq!(names(&bytes)[0].matches("cluster").count(), MAX_LEVELS);
        bytes[37] = 0;
        assert_eq!(names(&bytes), [""; 0]);
    }
}
