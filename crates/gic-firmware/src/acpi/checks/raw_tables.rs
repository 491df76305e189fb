//! Raw bytes of the tables, for checks of fields that the readers do not return.

use crate::acpi::fields::{node_start, structure_head};
use crate::acpi::iort::IortNode;
use crate::acpi::madt::MadtStructure;
use crate::acpi::table::Fields;

/// The bytes of the MADT and of the IORT; the latter are empty if the machine has no IORT.
#[derive(Clone, Copy)]
pub(super) struct RawTables<'a> {
    pub(super) madt: &'a [u8],
    pub(super) iort: &'a [u8],
}

impl<'a> RawTables<'a> {
    /// Returns the fields of a MADT structure, up to its end.
    pub(super) fn structure(self, at: &MadtStructure) -> Fields<'a> {
        self.at(at.offset)
    }

    /// Returns the fields of the MADT structure at this offset, up to its end.
    pub(super) fn at(self, offset: usize) -> Fields<'a> {
        let rest = Fields(self.madt.get(offset..).unwrap_or_default());
        let length = structure_head::LENGTH.read(rest).unwrap_or_default();
        Fields(rest.slice(0, length).unwrap_or(rest.0))
    }

    /// Returns the fields of an IORT node, up to its end.
    pub(super) fn node(self, node: &IortNode<'_>) -> Fields<'a> {
        let rest = Fields(self.iort.get(node.offset..).unwrap_or_default());
        let length = node_start::LENGTH.read(rest).unwrap_or_default();
        Fields(rest.slice(0, length).unwrap_or(rest.0))
    }
}
