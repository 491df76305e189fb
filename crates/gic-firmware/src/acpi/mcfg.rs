//! The MCFG locates PCI configuration space (PCI Firmware Specification 3.3 §4.1.2).

use super::fields::allocation;
use super::table::{Fields, Signature, Table, TableError, TableErrorKind};

/// Offset of the first allocation, after the header and eight reserved bytes.
const FIRST_ALLOCATION: usize = 44;
const ALLOCATION_BYTES: usize = 16;

/// A PCI Memory-mapped Configuration table: a list of ECAM windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mcfg<'a>(Table<'a>);

impl<'a> Mcfg<'a> {
    /// Reads `table` as an MCFG.
    ///
    /// # Errors
    ///
    /// Returns an error if `table` is not an MCFG.
    pub fn new(table: Table<'a>) -> Result<Self, TableError> {
        table.expect(Signature::MCFG).map(Self)
    }

    /// Returns the table with its header.
    pub const fn table(self) -> Table<'a> {
        self.0
    }

    /// Returns the windows that describe configuration space. Errors are skipped.
    pub(super) fn used(self) -> impl Iterator<Item = Allocation> {
        self.allocations().filter_map(Result::ok).filter(Allocation::is_used)
    }

    /// Returns the windows in order. A truncated last window is an error.
    pub(super) fn allocations(self) -> impl Iterator<Item = Result<Allocation, TableError>> {
        let bytes = self.0.bytes().get(FIRST_ALLOCATION..).unwrap_or_default();
        let offsets = (FIRST_ALLOCATION..).step_by(ALLOCATION_BYTES);
        bytes.chunks(ALLOCATION_BYTES).zip(offsets).map(move |(bytes, offset)| {
            let short = TableErrorKind::StructureLength(bytes.len());
            Allocation::read(offset, Fields(bytes)).ok_or(self.0.error(offset, short))
        })
    }
}

/// Configuration space for a range of buses in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Allocation {
    /// Offset in bytes from the start of the table.
    pub(super) offset: usize,
    /// Address of bus 0 of the segment, even if the allocation does not contain that bus.
    pub(super) base: u64,
    /// Segment group.
    pub(super) segment: u16,
    /// First bus.
    pub(super) first_bus: u8,
    /// Last bus.
    pub(super) last_bus: u8,
}

impl Allocation {
    /// Returns `false` if all fields are zero: firmware for a variable number of hosts leaves such
    /// allocations behind.
    pub(super) const fn is_used(&self) -> bool {
        self.base != 0 || self.segment != 0 || self.first_bus != 0 || self.last_bus != 0
    }

    pub(super) fn read(offset: usize, fields: Fields<'_>) -> Option<Self> {
        fields.slice(0, ALLOCATION_BYTES)?;
        Some(Self {
            offset,
            base: allocation::BASE.read(fields)?,
            segment: allocation::SEGMENT.read(fields)?,
            first_bus: allocation::FIRST_BUS.read(fields)?,
            last_bus: allocation::LAST_BUS.read(fields)?,
        })
    }
}
