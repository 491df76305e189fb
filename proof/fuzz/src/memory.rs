//! Guest memory that counts reads and writes, and panics if the model writes outside the tables.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use vgic::{GuestMemory, MemoryFault};

/// Address map.
pub mod layout {
    /// Address of the command queue.
    pub const QUEUE: u64 = 0x4000_0000;
    /// Size of the command queue in bytes.
    pub const QUEUE_BYTES: u64 = 0x1000;
    /// Address of the LPIs' configuration bytes.
    pub const CONFIGURATION: u64 = 0x4010_0000;
    /// Address of the first redistributor's pending table.
    pub const PENDING: u64 = 0x4020_0000;
    /// End of memory.
    pub const END: u64 = 0x4080_0000;

    /// Returns the address of a redistributor's pending table.
    pub const fn pending(cpu: u64) -> u64 {
        PENDING + (cpu << 16)
    }

    /// Returns the address of the device table (0) or the collection table (1).
    pub const fn table(which: u64) -> u64 {
        0x4030_0000 + (which << 20)
    }

    /// Returns the address of a device's interrupt translation table.
    pub const fn translation_table(device: u64) -> u64 {
        0x4050_0000 + (device << 16)
    }
}

const PAGE: u64 = 0x1000;
const CONFIGURATION: Range<u64> = layout::CONFIGURATION..layout::CONFIGURATION + 0x1_0000;

/// Returns the range of pending bits for 16 INTID bits in the table at an address. The model does
/// not use the first KiB.
pub const fn pending_bits(table: u64) -> Range<u64> {
    table + 0x400..table + 0x2000
}

/// RAM that is allocated when it is written. Memory that was never written reads as zero, except
/// that every LPI is enabled.
#[derive(Default)]
pub struct Memory {
    pages: Mutex<BTreeMap<u64, Box<[u8; PAGE as usize]>>>,
    reads: AtomicU64,
    writes: AtomicU64,
    tables: Mutex<Vec<Range<u64>>>,
}

impl Memory {
    /// Sets the ranges that the model may write.
    pub fn allow(&self, tables: impl IntoIterator<Item = Range<u64>>) {
        let mut allowed = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        allowed.clear();
        allowed.extend(tables);
    }

    /// Returns the number of reads.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Returns the number of the model's writes.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Writes a command or an entry of a table on behalf of the guest.
    pub fn guest_writes<const WORDS: usize>(&self, address: u64, words: [u64; WORDS]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.store(address, &bytes);
    }

    fn store(&self, address: u64, bytes: &[u8]) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, byte) in (address..).zip(bytes) {
            let page = pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[(at % PAGE) as usize] = *byte;
        }
    }

    fn check(address: u64, length: usize) -> Result<u64, MemoryFault> {
        let end = address
            .checked_add(length as u64)
            .filter(|end| address >= layout::QUEUE && *end <= layout::END);
        end.ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Self::check(address, bytes.len())?;
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut bytes) = (address, bytes);
        while !bytes.is_empty() {
            let start = (at % PAGE) as usize;
            let (part, rest) = bytes.split_at_mut(bytes.len().min(PAGE as usize - start));
            match pages.get(&(at / PAGE)) {
                Some(page) => part.copy_from_slice(&page[start..start + part.len()]),
                None => part.fill(if CONFIGURATION.contains(&at) { 0xa1 } else { 0 }),
            }
            (at, bytes) = (at + part.len() as u64, rest);
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let allowed = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let inside =
            |table: &Range<u64>| address >= table.start && end <= table.end || bytes.is_empty();
        assert!(
            allowed.iter().any(inside),
            "the model writes {} bytes at {address:#x}, outside the tables at {allowed:x?}",
            bytes.len()
        );
        drop(allowed);
        Self::check(address, bytes.len())?;
        self.store(address, bytes);
        Ok(())
    }
}
