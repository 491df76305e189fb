//! Table memory with two sides: what CPUs see, and what controllers see. A store reaches the
//! controllers when it is published, what they write reaches the CPUs when it is observed.

use gic_driver::{Coherence, TableLayout};
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    tables: BTreeMap<u64, [Vec<u8>; 2]>,
    next: u64,
    /// Allocations that still succeed.
    pub(crate) allowance: Option<u32>,
    /// The kernel can invalidate its caches.
    pub(crate) observable: bool,
}

const CPU: usize = 0;
const CONTROLLER: usize = 1;

impl Memory {
    pub(crate) fn allocate(&mut self, layout: TableLayout) -> Option<u64> {
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.checked_sub(1)?;
        }
        if layout.address_bits <= 32 {
            return None;
        }
        let address = (0x1_0000_0000 + self.next).next_multiple_of(layout.align);
        self.next = address + layout.bytes - 0x1_0000_0000;
        let bytes = vec![0; usize::try_from(layout.bytes).unwrap()];
        self.tables.insert(address, [bytes.clone(), bytes]);
        Some(address)
    }

    /// The size of a table that was allocated.
    pub(crate) fn bytes_of(&self, table: u64) -> Option<u64> {
        self.tables.get(&table).map(|[bytes, _]| bytes.len() as u64)
    }

    pub(crate) fn store(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            *self.byte(CPU, at) = *byte;
        }
    }

    pub(crate) fn load(&self, address: u64) -> u8 {
        self.peek(CPU, address)
    }

    pub(crate) fn publish(&mut self, table: u64, range: Range<u64>) {
        self.copy(table, range, CPU, CONTROLLER);
    }

    /// Returns true if that is possible.
    pub(crate) fn observe(&mut self, table: u64, range: Range<u64>, coherence: Coherence) -> bool {
        let possible = coherence == Coherence::Coherent || self.observable;
        if possible {
            self.copy(table, range, CONTROLLER, CPU);
        }
        possible
    }

    pub(crate) fn controller_load(&self, address: u64) -> u8 {
        self.peek(CONTROLLER, address)
    }

    pub(crate) fn controller_store(&mut self, address: u64, byte: u8) {
        *self.byte(CONTROLLER, address) = byte;
    }

    fn copy(&mut self, table: u64, range: Range<u64>, from: usize, to: usize) {
        let sides = self.tables.get_mut(&table).unwrap();
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let bytes = sides[from][range.clone()].to_vec();
        sides[to][range].copy_from_slice(&bytes);
    }

    fn peek(&self, side: usize, address: u64) -> u8 {
        let (base, sides) = self.tables.range(..=address).next_back().unwrap();
        sides[side][usize::try_from(address - base).unwrap()]
    }

    fn byte(&mut self, side: usize, address: u64) -> &mut u8 {
        let (base, sides) = self.tables.range_mut(..=address).next_back().unwrap();
        &mut sides[side][usize::try_from(address - base).unwrap()]
    }
}
