//! Names, offsets and sizes of the fields of tables (ACPI 6.6 §5.2.12, DEN 0049E, PCI Firmware
//! Specification 3.3 §4.1.2).
//!
//! Findings use the same names, so that an excerpt can point at the field.

use super::iort::{DRAFT_TYPE, IortContents, SmmuV3};
use super::table::Fields;
use alloc::format;
use alloc::string::{String, ToString};

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) at: usize,
    bytes: usize,
    is_hex: bool,
}

const fn number(name: &'static str, at: usize, bytes: usize) -> Field {
    Field { name, at, bytes, is_hex: false }
}

const fn hex(name: &'static str, at: usize, bytes: usize) -> Field {
    Field { name, at, bytes, is_hex: true }
}

impl Field {
    /// Reads the field of a structure; `None` if the structure ends before the field does.
    pub(super) fn read(self, structure: Fields<'_>) -> Option<u64> {
        match self.bytes {
            1 => structure.u8(self.at).map(u64::from),
            2 => structure.u16(self.at).map(u64::from),
            4 => structure.u32(self.at).map(u64::from),
            _ => structure.u64(self.at),
        }
    }

    /// Returns the field's value as text.
    pub(super) fn spelled(self, structure: Fields<'_>) -> Option<String> {
        let value = self.read(structure)?;
        Some(if self.is_hex { format!("{value:#x}") } else { value.to_string() })
    }
}

pub(super) const PERFORMANCE_GSIV: Field = number("performance interrupt GSIV", 20, 4);
pub(super) const GICC_BASE: Field = hex("physical base address", 32, 8);
pub(super) const GICV: Field = hex("GICV", 40, 8);
pub(super) const GICH: Field = hex("GICH", 48, 8);
pub(super) const MAINTENANCE_GSIV: Field = number("VGIC maintenance interrupt", 56, 4);
const GICC_GICR: Field = hex("GICR base address", 60, 8);
pub(super) const SPE_GSIV: Field = number("SPE overflow interrupt", 78, 2);
pub(super) const TRBE_GSIV: Field = number("TRBE interrupt", 80, 2);

pub(super) const SYSTEM_VECTOR_BASE: Field = number("system vector base", 16, 4);
pub(super) const UID: Field = number("ACPI processor UID", 8, 4);

pub(super) const EVENT_GSIV: Field = number("event GSIV", 44, 4);
pub(super) const PRI_GSIV: Field = number("PRI GSIV", 48, 4);
pub(super) const GERR_GSIV: Field = number("GERR GSIV", 52, 4);
pub(super) const SYNC_GSIV: Field = number("sync GSIV", 56, 4);
pub(super) const OVERFLOW_GSIV: Field = number("overflow interrupt GSIV", 24, 4);
pub(super) const NODE_REFERENCE: Field = hex("node reference", 28, 4);

const GICC: &[Field] = &[
    number("CPU interface number", 4, 4),
    UID,
    hex("flags", 12, 4),
    PERFORMANCE_GSIV,
    GICC_BASE,
    GICV,
    GICH,
    MAINTENANCE_GSIV,
    GICC_GICR,
    hex("MPIDR", 68, 8),
    SPE_GSIV,
    TRBE_GSIV,
];
const GICD: &[Field] = &[
    number("GIC ID", 4, 4),
    hex("physical base address", 8, 8),
    SYSTEM_VECTOR_BASE,
    number("GIC version", 20, 1),
];
const MSI_FRAME: &[Field] = &[
    number("GIC MSI frame ID", 4, 4),
    hex("physical base address", 8, 8),
    hex("flags", 16, 4),
    number("SPI count", 20, 2),
    number("SPI base", 22, 2),
];
const GICR: &[Field] = &[
    hex("flags", 2, 1),
    hex("discovery range base address", 4, 8),
    hex("discovery range length", 12, 4),
];
const ITS: &[Field] =
    &[hex("flags", 2, 1), number("GIC ITS ID", 4, 4), hex("physical base address", 8, 8)];

/// Returns the name and the fields of a MADT structure type.
pub(super) fn of_madt(kind: u8) -> (&'static str, &'static [Field]) {
    match kind {
        11 => ("GICC", GICC),
        12 => ("GICD", GICD),
        13 => ("GIC MSI frame", MSI_FRAME),
        14 => ("GICR", GICR),
        15 => ("GIC ITS", ITS),
        _ => ("structure", &[]),
    }
}

/// Returns the size of a MADT structure type whose size has never changed; `None` for other types.
pub(super) const fn madt_size(kind: u8) -> Option<usize> {
    match kind {
        12 | 13 => Some(24),
        14 => Some(16),
        15 => Some(20),
        _ => None,
    }
}

/// Fields at the start of each structure of a MADT.
pub(super) const STRUCTURE: &[Field] = &[number("length", 1, 1)];
/// Fields at the start of each node that are stated only if the node cannot be read.
pub(super) const BROKEN_NODE: &[Field] = &[number("type", 0, 1), number("length", 1, 2)];
/// Fields at the start of each node.
pub(super) const NODE: &[Field] = &[
    number("revision", 3, 1),
    number("identifier", 4, 4),
    number("number of ID mappings", 8, 4),
    hex("offset of ID mappings", 12, 4),
];
const ITS_GROUP: &[Field] = &[number("number of ITSes", 16, 4)];
const NAMED_COMPONENT: &[Field] = &[
    hex("node flags", 16, 4),
    hex("memory access properties", 20, 8),
    number("memory address size limit", 28, 1),
];
const ROOT_COMPLEX: &[Field] = &[
    hex("memory access properties", 16, 8),
    hex("ATS attribute", 24, 4),
    number("PCI segment number", 28, 4),
    number("memory address size limit", 32, 1),
];
const SMMU_V2: &[Field] = &[
    hex("base address", 16, 8),
    hex("span", 24, 8),
    number("model", 32, 4),
    hex("offset of global interrupts", 40, 4),
    number("number of context interrupts", 44, 4),
    hex("offset of context interrupts", 48, 4),
    number("number of PMU interrupts", 52, 4),
    hex("offset of PMU interrupts", 56, 4),
];
const SMMU_V3: &[Field] = &[
    hex("base address", 16, 8),
    hex("flags", 24, 4),
    number("model", 40, 4),
    EVENT_GSIV,
    PRI_GSIV,
    GERR_GSIV,
    SYNC_GSIV,
    number("DeviceID mapping index", 64, 4),
];
const PMCG: &[Field] = &[
    hex("page 0 base address", 16, 8),
    OVERFLOW_GSIV,
    NODE_REFERENCE,
    hex("page 1 base address", 32, 8),
];
const RMR: &[Field] = &[
    hex("flags", 16, 4),
    number("number of memory ranges", 20, 4),
    hex("offset of memory ranges", 24, 4),
];

/// Returns the fields of an IORT node that follow those of [`NODE`].
pub(super) const fn of_node(contents: IortContents<'_>) -> &'static [Field] {
    match contents {
        IortContents::ItsGroup(_) => ITS_GROUP,
        IortContents::NamedComponent(_) => NAMED_COMPONENT,
        IortContents::RootComplex(_) => ROOT_COMPLEX,
        IortContents::SmmuV2(_) => SMMU_V2,
        IortContents::SmmuV3(SmmuV3 { .. }) => SMMU_V3,
        IortContents::Pmcg(_) => PMCG,
        IortContents::Rmr => RMR,
        IortContents::Iwb | IortContents::DraftRedistributorGroup | IortContents::Other(_) => &[],
    }
}

/// Returns the size of a node's fields, and the highest revision that is known for its type.
pub(super) const fn node_layout(kind: u8, revision: u8) -> Option<(usize, u8)> {
    Some(match kind {
        0 => (20, 1),
        1 => (29, 4),
        2 => (if revision == 0 { 32 } else { 36 }, 4),
        3 => (60, 3),
        4 => (if revision == 0 { 60 } else { 68 }, 5),
        5 => (if revision == 0 { 32 } else { 40 }, 2),
        6 => (28, 3),
        7 => (28, 0),
        DRAFT_TYPE => (40, 0),
        _ => return None,
    })
}

/// Fields of a table's header.
pub(super) const HEADER: &[Field] = &[
    number("length", 4, 4),
    number("revision", 8, 1),
    hex("checksum", 9, 1),
    number("OEM revision", 24, 4),
];
/// Fields that follow an IORT's header.
pub(super) const IORT_HEADER: &[Field] =
    &[number("number of nodes", 36, 4), hex("offset of nodes", 40, 4)];
/// Fields of an allocation of the MCFG.
pub(super) const ALLOCATION: &[Field] = &[
    hex("base address", 0, 8),
    number("PCI segment group number", 8, 2),
    hex("start bus number", 10, 1),
    hex("end bus number", 11, 1),
];
