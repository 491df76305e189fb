//! Guest memory that counts reads and writes, and panics if the model writes outside the tables.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use doorbell_test_support::guest::{Ram, ram};
use vgic::{GuestMemory, MemoryFault, VmMemory};

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
    /// Size of the memory in bytes, and its end. The queue is at its start.
    pub const BYTES: usize = 8 << 20;
    pub const END: u64 = QUEUE + BYTES as u64;

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

/// Returns the range of pending bits for 16 INTID bits in the table at an address. The model does
/// not use the first KiB.
pub const fn pending_bits(table: u64) -> Range<u64> {
    table + 0x400..table + 0x2000
}

/// RAM in which every LPI is enabled.
pub struct Memory {
    ram: VmMemory<Ram>,
    reads: AtomicU64,
    writes: AtomicU64,
    tables: Mutex<Vec<Range<u64>>>,
}

impl Default for Memory {
    fn default() -> Self {
        let ram = VmMemory(ram(layout::QUEUE, layout::BYTES));
        ram.write(layout::CONFIGURATION, &[0xa1; 0x1_0000]).expect("the table is in memory");
        Self { ram, reads: 0.into(), writes: 0.into(), tables: Mutex::default() }
    }
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

    /// Writes a command or an entry of a table on behalf of the guest, if the address is in memory.
    pub fn guest_writes<const WORDS: usize>(&self, address: u64, words: [u64; WORDS]) {
        let words = words.map(u64::to_le_bytes);
        let _: Result<(), MemoryFault> = self.ram.write(address, words.as_flattened());
    }
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.ram.read(address, bytes)
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
        self.ram.write(address, bytes)
    }
}
