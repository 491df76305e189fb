//! Collects a machine's tables, by signature or by following the root pointer.

use super::iort::Iort;
use super::madt::Madt;
use super::mcfg::Mcfg;
use super::table::{Fields, HEADER_BYTES, Signature, Table, TableError, TableErrorKind};

/// Length of an ACPI 2.0 (or later) root pointer, in bytes.
const RSDP_BYTES: usize = 36;

/// A machine's interrupt-related tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSet<'a> {
    /// CPUs, GIC and MSI controllers.
    pub madt: Madt<'a>,
    /// Routing of requester IDs.
    pub iort: Option<Iort<'a>>,
    /// PCI configuration space.
    pub mcfg: Option<Mcfg<'a>>,
    /// Firmware's view of the machine as a whole.
    pub fadt: Option<Table<'a>>,
}

impl<'a> TableSet<'a> {
    /// Selects the known tables among `blobs`, each of which must be a table with its header. If a
    /// signature occurs more than once, the first table is used.
    ///
    /// # Errors
    ///
    /// Returns an error if a header is malformed, or if no MADT is among the blobs.
    pub fn from_blobs(blobs: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TableError> {
        let mut found = FoundTables::default();
        for blob in blobs {
            found.add(Table::new(blob)?);
        }
        found.finish()
    }

    /// Finds the tables listed in the XSDT, starting at the root pointer at address `rsdp`.
    /// `memory` must return the given number of bytes at a physical address, or `None` if they
    /// cannot be read.
    ///
    /// # Errors
    ///
    /// Returns an error if memory cannot be read, if a header is malformed, or if the XSDT or the
    /// MADT is absent.
    pub fn from_memory(
        rsdp: u64,
        mut memory: impl FnMut(u64, usize) -> Option<&'a [u8]>,
    ) -> Result<Self, TableError> {
        let root = memory(rsdp, RSDP_BYTES)
            .ok_or(TableErrorKind::Unreadable(rsdp).at(Signature::RSDP, 0))?;
        let root = Fields(root);
        if root.array(0) != Some(*b"RSD PTR ") {
            let found = Signature::new(root.array(0).unwrap_or_default());
            return Err(TableErrorKind::Signature(found).at(Signature::RSDP, 0));
        }
        let xsdt = root.u64(24).filter(|&address| address != 0 && root.u8(15) >= Some(2));
        let xsdt = xsdt.ok_or(TableErrorKind::NoXsdt.at(Signature::RSDP, 24))?;
        let xsdt = table_at(xsdt, &mut memory)?.expect(Signature::XSDT)?;
        let (addresses, _) = xsdt.bytes().get(HEADER_BYTES..).unwrap_or_default().as_chunks();
        let mut found = FoundTables::default();
        for address in addresses {
            found.add(table_at(u64::from_le_bytes(*address), &mut memory)?);
        }
        found.finish()
    }
}

/// Reads the table at `address`, whose length is in its header.
fn table_at<'a>(
    address: u64,
    memory: &mut impl FnMut(u64, usize) -> Option<&'a [u8]>,
) -> Result<Table<'a>, TableError> {
    let unreadable = TableErrorKind::Unreadable(address).at(Signature::XSDT, 0);
    let header = memory(address, HEADER_BYTES).ok_or(unreadable)?;
    let length = Fields(header).u32(4).and_then(|length| usize::try_from(length).ok());
    Table::new(memory(address, length.ok_or(unreadable)?.max(HEADER_BYTES)).ok_or(unreadable)?)
}

#[derive(Default)]
struct FoundTables<'a> {
    madt: Option<Madt<'a>>,
    iort: Option<Iort<'a>>,
    mcfg: Option<Mcfg<'a>>,
    fadt: Option<Table<'a>>,
}

impl<'a> FoundTables<'a> {
    fn add(&mut self, table: Table<'a>) {
        self.madt = self.madt.or_else(|| Madt::new(table).ok());
        self.iort = self.iort.or_else(|| Iort::new(table).ok());
        self.mcfg = self.mcfg.or_else(|| Mcfg::new(table).ok());
        self.fadt = self.fadt.or_else(|| table.expect(Signature::FADT).ok());
    }

    fn finish(self) -> Result<TableSet<'a>, TableError> {
        let madt = self.madt.ok_or(TableErrorKind::Absent.at(Signature::MADT, 0))?;
        Ok(TableSet { madt, iort: self.iort, mcfg: self.mcfg, fadt: self.fadt })
    }
}
