//! Guest memory that counts what is read, and punishes writes beside the pending tables.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use vgic::{GuestMemory, MemoryFault};

/// Where things lie.
pub mod layout {
    /// The command queue.
    pub const QUEUE: u64 = 0x4000_0000;
    /// Its size.
    pub const QUEUE_BYTES: u64 = 0x1000;
    /// The LPIs' configuration bytes.
    pub const CONFIGURATION: u64 = 0x4010_0000;
    /// The first redistributor's pending table.
    pub const PENDING: u64 = 0x4020_0000;
    /// The end of memory.
    pub const END: u64 = 0x4080_0000;

    /// A redistributor's pending table.
    pub const fn pending(cpu: u64) -> u64 {
        PENDING + (cpu << 16)
    }

    /// The device table (0) or the collection table (1).
    pub const fn table(which: u64) -> u64 {
        0x4030_0000 + (which << 20)
    }

    /// A device's interrupt translation table.
    pub const fn translation_table(device: u64) -> u64 {
        0x4050_0000 + (device << 16)
    }
}

const PAGE: u64 = 0x1000;
/// Pending bits of 16 INTID bits; the first KiB is not the model's.
const TABLE: std::ops::Range<u64> = 0x400..0x2000;

/// RAM that exists where it was written. What was never written reads as zero, but each LPI is enabled.
#[derive(Default)]
pub struct Memory {
    pages: Mutex<BTreeMap<u64, Box<[u8; PAGE as usize]>>>,
    reads: AtomicU64,
    pending_tables: Mutex<Vec<u64>>,
}

impl Memory {
    /// Says where pending tables are.
    pub fn allow(&self, pending_tables: impl IntoIterator<Item = u64>) {
        let mut allowed = self.pending_tables.lock().unwrap_or_else(PoisonError::into_inner);
        allowed.clear();
        allowed.extend(pending_tables);
    }

    /// How often was anything read?
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The guest writes a command.
    pub fn guest_writes(&self, address: u64, words: [u64; 4]) {
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
        let end =
            address.checked_add(length as u64).filter(|end| address >= layout::QUEUE && *end <= layout::END);
        end.ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Self::check(address, bytes.len())?;
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, byte) in (address..).zip(bytes) {
            let configuration = layout::CONFIGURATION..layout::CONFIGURATION + 0x1_0000;
            let untouched = if configuration.contains(&at) { 0xa1 } else { 0 };
            *byte = pages.get(&(at / PAGE)).map_or(untouched, |page| page[(at % PAGE) as usize]);
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        let allowed = self.pending_tables.lock().unwrap_or_else(PoisonError::into_inner);
        let inside =
            |table: &u64| address >= table + TABLE.start && end <= table + TABLE.end || bytes.is_empty();
        assert!(
            allowed.iter().any(inside),
            "the model writes {} bytes at {address:#x}, outside of the pending tables at {allowed:x?}",
            bytes.len()
        );
        drop(allowed);
        Self::check(address, bytes.len())?;
        self.store(address, bytes);
        Ok(())
    }
}
