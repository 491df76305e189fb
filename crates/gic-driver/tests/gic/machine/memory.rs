//! Table memory with two sides: what CPUs see, and what a controller sees that does not look into
//! their caches.

use gic_driver::{Coherence, PhysicalRegion, Table, TableLayout};
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    tables: BTreeMap<u64, Bytes>,
    /// Regions that firmware or a previous kernel reserved.
    pub(crate) reserved: Vec<PhysicalRegion>,
    /// Bytes after which there is no more.
    pub(crate) limit: Option<u64>,
    /// Added to every address: a platform that aligns badly.
    pub(crate) misalignment: u64,
    next: u64,
    /// The place of the next table below 4 GiB.
    next_low: u64,
}

#[derive(Debug)]
struct Bytes {
    cached: Vec<u8>,
    cleaned: Vec<u8>,
}

impl Bytes {
    fn new(bytes: u64, fill: u8) -> Self {
        let bytes = vec![fill; usize::try_from(bytes).unwrap()];
        Self { cached: bytes.clone(), cleaned: bytes }
    }
}

impl Memory {
    pub(crate) fn allocate(&mut self, layout: TableLayout) -> Option<Table> {
        if layout.address_bits <= 32 {
            let address =
                (0x4000_0000 + self.next_low).next_multiple_of(layout.align) + self.misalignment;
            self.next_low = address - self.misalignment + layout.bytes - 0x4000_0000;
            self.tables.insert(address, Bytes::new(layout.bytes, 0));
            return Some(Table::new(address, layout.bytes, 0));
        }
        let address =
            (0x1_0000_0000 + self.next).next_multiple_of(layout.align) + self.misalignment;
        let end = address + layout.bytes - 0x1_0000_0000;
        if self.limit.is_some_and(|limit| end > limit) {
            return None;
        }
        self.next = end;
        self.tables.insert(address, Bytes::new(layout.bytes, 0));
        Some(Table::new(address, layout.bytes, 0))
    }

    pub(crate) fn adopt(&mut self, region: PhysicalRegion) -> Option<Table> {
        self.reserved.iter().find(|reserved| reserved.base == region.base)?;
        // A previous kernel left every LPI enabled.
        self.tables.insert(region.base, Bytes::new(region.bytes, 0xa3));
        Some(Table::new(region.base, region.bytes, 0))
    }

    pub(crate) fn release(&mut self, table: &Table) {
        assert!(self.tables.remove(&table.address).is_some(), "a table is released once");
    }

    pub(crate) fn store(&mut self, table: &Table, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let table = self.tables.get_mut(&table.address).unwrap();
        table.cached[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn load(&self, table: &Table, offset: u64) -> u8 {
        self.tables[&table.address].cached[usize::try_from(offset).unwrap()]
    }

    pub(crate) fn publish(&mut self, table: &Table, range: Range<u64>, coherence: Coherence) {
        if coherence == Coherence::NonCoherent {
            let table = self.tables.get_mut(&table.address).unwrap();
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            table.cleaned[range.clone()].copy_from_slice(&table.cached[range]);
        }
    }

    /// Reads a byte as a non-coherent controller does.
    pub(crate) fn non_coherent(&self, address: u64) -> u8 {
        let (base, table) = self.tables.range(..=address).next_back().unwrap();
        table.cleaned[usize::try_from(address - base).unwrap()]
    }

    /// Writes a byte as a controller does, into both views.
    pub(crate) fn controller_writes(&mut self, address: u64, value: u8) {
        let (base, table) = self.tables.range_mut(..=address).next_back().unwrap();
        let offset = usize::try_from(address - base).unwrap();
        table.cached[offset] = value;
        table.cleaned[offset] = value;
    }

    /// Number of tables at or above this address.
    pub(crate) fn tables_from(&self, address: u64) -> usize {
        self.tables.range(address..).count()
    }

    pub(crate) fn tables(&self) -> usize {
        self.tables.len()
    }
}
