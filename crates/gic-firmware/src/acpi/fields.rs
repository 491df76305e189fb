//! Layouts of tables, their structures and their nodes (ACPI 6.6 §5.2.12, DEN 0049E, PCI Firmware
//! Specification 3.3 §4.1.2).
//!
//! The readers, the writer and the checks use the fields by their constants. Findings use their
//! names, so that an excerpt can point at the field.

use super::table::{Fields, Signature};
use alloc::format;
use alloc::string::{String, ToString};

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) at: usize,
    pub(super) bytes: usize,
    is_hex: bool,
}

const DECIMAL: bool = false;
const HEX: bool = true;

impl Field {
    /// Reads the field of a structure; `None` if the structure ends before the field does, or if
    /// `T` cannot hold the value.
    pub(super) fn read<T: TryFrom<u64>>(self, structure: Fields<'_>) -> Option<T> {
        let value = match self.bytes {
            1 => structure.u8(self.at).map(u64::from),
            2 => structure.u16(self.at).map(u64::from),
            4 => structure.u32(self.at).map(u64::from),
            _ => structure.u64(self.at),
        };
        T::try_from(value?).ok()
    }

    /// Returns `true` if a flag of the field is set.
    pub(super) fn has(self, structure: Fields<'_>, flag: u64) -> Option<bool> {
        Some(self.read::<u64>(structure)? & flag != 0)
    }

    /// Returns the field's value as text.
    pub(super) fn spelled(self, structure: Fields<'_>) -> Option<String> {
        let value: u64 = self.read(structure)?;
        Some(if self.is_hex { format!("{value:#x}") } else { value.to_string() })
    }
}

/// A type of MADT structure or IORT node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    table: Signature,
    pub(super) kind: u8,
    pub(super) name: &'static str,
    /// Size of the first revision in bytes, without arrays and text.
    pub(super) first: u8,
    /// Size of the later revisions in bytes.
    pub(super) later: u8,
    /// Highest known revision of a node.
    pub(super) newest: u8,
    /// Fields that follow those which all types share.
    pub(super) fields: &'static [Field],
}

impl Layout {
    pub(super) const fn size(self, revision: u8) -> u8 {
        if revision == 0 { self.first } else { self.later }
    }

    /// Returns the layout of a type of structure or node of `table`.
    pub(super) fn of(table: Signature, kind: u8) -> Option<Self> {
        LAYOUTS.iter().copied().find(|one| one.table == table && one.kind == kind)
    }
}

/// Declares structures, each as a module with its fields in order. A field has an offset, a width
/// in bytes, a notation and a name. A type has a table, a number, a name, the size of its first
/// revision and that of its later ones, and its newest revision.
macro_rules! structures {
    ($($structure:ident $([
        $table:ident $kind:literal $title:literal $first:literal $later:literal $newest:literal
    ])? {
        $($field:ident: $at:literal $bytes:literal $notation:ident $name:literal,)*
    })*) => {
        const LAYOUTS: &[Layout] = &[$($(Layout { kind: $kind, ..$structure::LAYOUT },)?)*];
        $(pub(super) mod $structure {
            use $crate::acpi::fields::*;

            $(pub(in crate::acpi) const $field: Field =
                Field { name: $name, at: $at, bytes: $bytes, is_hex: $notation };)*
            pub(in crate::acpi) const FIELDS: &[Field] = &[$($field),*];
            $(
                pub(in crate::acpi) const KIND: u8 = $kind;
                pub(in crate::acpi) const LAYOUT: Layout = Layout {
                    table: Signature::$table,
                    kind: $kind,
                    name: $title,
                    first: $first,
                    later: $later,
                    newest: $newest,
                    fields: FIELDS,
                };
            )?
        })*
    };
}

structures! {
    table_header {
        LENGTH: 4 4 DECIMAL "length",
        REVISION: 8 1 DECIMAL "revision",
        CHECKSUM: 9 1 HEX "checksum",
        OEM_REVISION: 24 4 DECIMAL "OEM revision",
    }
    iort_header {
        NODES: 36 4 DECIMAL "number of nodes",
        FIRST_NODE: 40 4 HEX "offset of nodes",
    }
    allocation {
        BASE: 0 8 HEX "base address",
        SEGMENT: 8 2 DECIMAL "PCI segment group number",
        FIRST_BUS: 10 1 HEX "start bus number",
        LAST_BUS: 11 1 HEX "end bus number",
    }
    structure_head {
        LENGTH: 1 1 DECIMAL "length",
    }
    gicc [MADT 11 "GICC" 40 82 0] {
        INTERFACE: 4 4 DECIMAL "CPU interface number",
        UID: 8 4 DECIMAL "ACPI processor UID",
        FLAGS: 12 4 HEX "flags",
        PERFORMANCE_GSIV: 20 4 DECIMAL "performance interrupt GSIV",
        BASE: 32 8 HEX "physical base address",
        GICV: 40 8 HEX "GICV",
        GICH: 48 8 HEX "GICH",
        MAINTENANCE_GSIV: 56 4 DECIMAL "VGIC maintenance interrupt",
        REDISTRIBUTOR: 60 8 HEX "GICR base address",
        MPIDR: 68 8 HEX "MPIDR",
        SPE_GSIV: 78 2 DECIMAL "SPE overflow interrupt",
        TRBE_GSIV: 80 2 DECIMAL "TRBE interrupt",
    }
    gicd [MADT 12 "GICD" 24 24 0] {
        ID: 4 4 DECIMAL "GIC ID",
        BASE: 8 8 HEX "physical base address",
        SYSTEM_VECTOR_BASE: 16 4 DECIMAL "system vector base",
        VERSION: 20 1 DECIMAL "GIC version",
    }
    msi_frame [MADT 13 "GIC MSI frame" 24 24 0] {
        ID: 4 4 DECIMAL "GIC MSI frame ID",
        BASE: 8 8 HEX "physical base address",
        FLAGS: 16 4 HEX "flags",
        SPI_COUNT: 20 2 DECIMAL "SPI count",
        SPI_BASE: 22 2 DECIMAL "SPI base",
    }
    gicr [MADT 14 "GICR" 16 16 0] {
        FLAGS: 2 1 HEX "flags",
        BASE: 4 8 HEX "discovery range base address",
        LENGTH: 12 4 HEX "discovery range length",
    }
    its [MADT 15 "GIC ITS" 20 20 0] {
        FLAGS: 2 1 HEX "flags",
        ID: 4 4 DECIMAL "GIC ITS ID",
        BASE: 8 8 HEX "physical base address",
    }
    // Excerpts state these fields only of a node that cannot be read.
    node_start {
        KIND: 0 1 DECIMAL "type",
        LENGTH: 1 2 DECIMAL "length",
    }
    node_head {
        REVISION: 3 1 DECIMAL "revision",
        IDENTIFIER: 4 4 DECIMAL "identifier",
        MAPPINGS: 8 4 DECIMAL "number of ID mappings",
        FIRST_MAPPING: 12 4 HEX "offset of ID mappings",
    }
    its_group [IORT 0 "ITS group" 20 20 1] {
        ITSES: 16 4 DECIMAL "number of ITSes",
    }
    named_component [IORT 1 "named component" 29 29 4] {
        FLAGS: 16 4 HEX "node flags",
        MEMORY: 20 8 HEX "memory access properties",
        ADDRESS_BITS: 28 1 DECIMAL "memory address size limit",
    }
    root_complex [IORT 2 "root complex" 32 36 4] {
        MEMORY: 16 8 HEX "memory access properties",
        ATS: 24 4 HEX "ATS attribute",
        SEGMENT: 28 4 DECIMAL "PCI segment number",
        ADDRESS_BITS: 32 1 DECIMAL "memory address size limit",
    }
    smmu_v2 [IORT 3 "SMMUv2" 60 60 3] {
        BASE: 16 8 HEX "base address",
        SPAN: 24 8 HEX "span",
        MODEL: 32 4 DECIMAL "model",
        GLOBAL_INTERRUPTS: 40 4 HEX "offset of global interrupts",
        CONTEXT_COUNT: 44 4 DECIMAL "number of context interrupts",
        CONTEXT_INTERRUPTS: 48 4 HEX "offset of context interrupts",
        PMU_COUNT: 52 4 DECIMAL "number of PMU interrupts",
        PMU_INTERRUPTS: 56 4 HEX "offset of PMU interrupts",
    }
    smmu_v3 [IORT 4 "SMMUv3" 60 68 5] {
        BASE: 16 8 HEX "base address",
        FLAGS: 24 4 HEX "flags",
        MODEL: 40 4 DECIMAL "model",
        EVENT_GSIV: 44 4 DECIMAL "event GSIV",
        PRI_GSIV: 48 4 DECIMAL "PRI GSIV",
        GERR_GSIV: 52 4 DECIMAL "GERR GSIV",
        SYNC_GSIV: 56 4 DECIMAL "sync GSIV",
        OWN_MAPPING: 64 4 DECIMAL "DeviceID mapping index",
    }
    pmcg [IORT 5 "PMCG" 32 40 2] {
        PAGE_0: 16 8 HEX "page 0 base address",
        OVERFLOW_GSIV: 24 4 DECIMAL "overflow interrupt GSIV",
        NODE_REFERENCE: 28 4 HEX "node reference",
        PAGE_1: 32 8 HEX "page 1 base address",
    }
    rmr [IORT 6 "RMR" 28 28 3] {
        FLAGS: 16 4 HEX "flags",
        RANGES: 20 4 DECIMAL "number of memory ranges",
        FIRST_RANGE: 24 4 HEX "offset of memory ranges",
    }
    iwb [IORT 7 "IWB" 28 28 0] {}
    redistributor_group [IORT 31 "redistributor group" 40 40 0] {}
}

/// Fields of an SMMUv3 that hold a GSIV.
pub(super) const SMMU_V3_GSIVS: [Field; 4] =
    [smmu_v3::EVENT_GSIV, smmu_v3::PRI_GSIV, smmu_v3::GERR_GSIV, smmu_v3::SYNC_GSIV];
/// Number and offset of each list of GSIVs of an SMMUv2 that has a number.
pub(super) const SMMU_V2_LISTS: [(Field, Field); 2] = [
    (smmu_v2::CONTEXT_COUNT, smmu_v2::CONTEXT_INTERRUPTS),
    (smmu_v2::PMU_COUNT, smmu_v2::PMU_INTERRUPTS),
];
/// Flag of an SMMUv3 (revision 5): the DeviceID mapping index is valid.
pub(super) const INDEX_VALID: u64 = 1 << 4;

/// Returns the size of a MADT structure type whose size has never changed; `None` for other types.
pub(super) fn madt_size(kind: u8) -> Option<usize> {
    let layout = Layout::of(Signature::MADT, kind)?;
    (layout.first == layout.later).then_some(layout.first.into())
}
