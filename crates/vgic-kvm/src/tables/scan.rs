//! Addresses of table entries, and limits on the number of entries that are read or written.

use crate::abi::Errno;
use crate::left_out::TableMemory;
use alloc::vec::Vec;
use doorbell_fallible::{try_collect, try_push};
use gic_arch::gits::Baser;
use gic_arch::its::Level1Entry;

/// Size of every entry in bytes.
pub(crate) const ENTRY: u64 = 8;
/// Number of DeviceIDs, EventIDs and ICIDs. All of them have 16 bits.
pub(crate) const IDS: u64 = 1 << 16;
/// Maximum number of entries that a restore reads: enough for all devices with 256 events each.
const MOST_READ: u32 = 1 << 24;
/// Maximum number of entries that a save clears. If a guest's tables are larger, stale entries
/// beyond this limit reappear when the tables are restored.
const MOST_CLEARED: u64 = 1 << 23;
/// Number of entries that are cleared in one step.
const CHUNK: usize = 512;

/// Consecutive entries in a device table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// DeviceID of the first entry.
    pub(crate) first: u64,
    pub(crate) entries: u64,
    pub(crate) address: u64,
}

/// Step that a reader takes after the end of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Continue with the next page.
    Page,
    /// Stop.
    End,
}

/// Returns the device table pages that the guest has provided, limited to 16-bit DeviceIDs.
pub(crate) fn pages(table: Baser, memory: &mut TableMemory<'_>) -> Result<Vec<Page>, Errno> {
    if !table.indirect() {
        let entries = (table.bytes() / ENTRY).min(IDS);
        return Ok(try_collect(core::iter::once(Page {
            first: 0,
            entries,
            address: table.address(),
        }))?);
    }
    let entries = table.page_size().bytes() / ENTRY;
    let mut pages = Vec::new();
    for index in 0..(table.bytes() / ENTRY).min(IDS / entries) {
        if let Some(address) = second_level(table, index, memory) {
            try_push(&mut pages, Page { first: index * entries, entries, address })?;
        }
    }
    Ok(pages)
}

/// Returns the address of a device's entry, or `None` if the guest has not provided memory for the
/// entry.
pub(super) fn locate(table: Baser, id: u64, memory: &mut TableMemory<'_>) -> Option<u64> {
    if !table.indirect() {
        let inside = id < table.bytes() / ENTRY;
        return inside.then_some(table.address() + ENTRY * id);
    }
    let entries = table.page_size().bytes() / ENTRY;
    if id / entries >= table.bytes() / ENTRY {
        return None;
    }
    let page = second_level(table, id / entries, memory)?;
    Some(page + ENTRY * (id % entries))
}

/// Returns the address in a first-level entry, if the entry is in memory and valid.
fn second_level(table: Baser, index: u64, memory: &mut TableMemory<'_>) -> Option<u64> {
    let entry = Level1Entry::from_bits(memory.read_u64(table.address() + ENTRY * index).ok()?);
    entry.valid().then(|| entry.address() & !(table.page_size().bytes() - 1))
}

/// Remaining work budget for one save or restore.
#[derive(Debug)]
pub(super) struct Budget {
    reads: u32,
    clears: u64,
    devices: u32,
    events: u32,
}

impl Budget {
    /// Creates the budget for a machine with these mapping limits.
    pub(super) const fn new(devices: u32, events: u32) -> Self {
        Self { reads: MOST_READ, clears: MOST_CLEARED, devices, events }
    }

    /// Charges one mapped device.
    pub(super) fn map_device(&mut self) -> Result<(), Errno> {
        self.devices = self.devices.checked_sub(1).ok_or(Errno::NoMemory)?;
        Ok(())
    }

    /// Charges one mapped event.
    pub(super) fn map_event(&mut self) -> Result<(), Errno> {
        self.events = self.events.checked_sub(1).ok_or(Errno::NoMemory)?;
        Ok(())
    }

    /// Charges one entry that is read.
    pub(super) fn spend(&mut self) -> Result<(), Errno> {
        self.reads = self.reads.checked_sub(1).ok_or(Errno::NoMemory)?;
        Ok(())
    }

    /// Clears up to `entries` entries starting at `address`, within the budget. Doesn't write
    /// entries that are already clear, because a migration has to resend every page that is
    /// written.
    pub(super) fn clear(
        &mut self,
        address: u64,
        entries: u64,
        memory: &mut TableMemory<'_>,
    ) -> Result<(), Errno> {
        let entries = entries.min(self.clears);
        self.clears -= entries;
        let mut bytes = [0; CHUNK * 8];
        for first in (0..entries).step_by(CHUNK) {
            let count = usize::try_from(entries - first).unwrap_or(CHUNK).min(CHUNK);
            let (part, at) = (&mut bytes[..8 * count], address + ENTRY * first);
            memory.read(at, part)?;
            if part.iter().any(|byte| *byte != 0) {
                part.fill(0);
                memory.write(at, part)?;
            }
        }
        Ok(())
    }
}
