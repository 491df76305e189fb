//! Addresses of table entries, and limits on the number of entries that are read or written.

use crate::abi::Errno;
use crate::left_out::TableMemory;
use gic_arch::gits::Baser;
use gic_arch::its::Level1Entry;

/// Size of every entry in bytes.
pub(crate) const ENTRY: u64 = 8;
/// Number of DeviceIDs, EventIDs and ICIDs. All of them have 16 bits.
pub(crate) const IDS: u64 = 1 << 16;
/// Maximum number of entries that a restore reads, or that a save clears: enough for 2048 devices
/// with all events. KVM has no limit. A save counts an ITS whose tables a restore would refuse.
const MOST_ENTRIES: u64 = 1 << 27;
/// Size of the blocks in which entries are read and cleared.
const BLOCK: usize = 0x1000;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

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

/// Returns the number of pages of a device table: of all pages that KVM reads if the restore is as
/// strict, otherwise of those for 16-bit DeviceIDs.
pub(crate) fn page_count(table: Baser, memory: &TableMemory<'_>) -> u64 {
    let entries = table.page_size().bytes() / ENTRY;
    match (table.indirect(), memory.is_strict()) {
        (false, _) => 1,
        (true, false) => (table.bytes() / ENTRY).min(IDS / entries),
        (true, true) => table.bytes() / ENTRY,
    }
}

/// Returns the page of a device table with this index, or `None` if the guest has not provided it.
/// Fails if the first-level entry can't be read.
pub(crate) fn page(
    table: Baser,
    index: u64,
    memory: &mut TableMemory<'_>,
) -> Result<Option<Page>, Errno> {
    if table.indirect() {
        let entries = table.page_size().bytes() / ENTRY;
        let address = second_level(table, index, memory)?;
        return Ok(address.map(|address| Page { first: index * entries, entries, address }));
    }
    let most = if memory.is_strict() { u64::MAX } else { IDS };
    let entries = (table.bytes() / ENTRY).min(most);
    Ok(Some(Page { first: 0, entries, address: table.address() }))
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
    let page = second_level(table, id / entries, memory).ok()??;
    Some(page + ENTRY * (id % entries))
}

/// Returns the address in a first-level entry, if the entry is valid.
fn second_level(
    table: Baser,
    index: u64,
    memory: &mut TableMemory<'_>,
) -> Result<Option<u64>, Errno> {
    let entry = Level1Entry::from_bits(memory.read_u64(table.address() + ENTRY * index)?);
    Ok(entry.valid().then(|| entry.address() & !(table.page_size().bytes() - 1)))
}

/// Reads the entries of one table in blocks, because a call for each entry would take most of the
/// time of a restore.
pub(super) struct EntryReader {
    /// First address after the table.
    end: u64,
    /// Address and number of bytes of the current block.
    address: u64,
    valid: usize,
    bytes: [u8; BLOCK],
}

impl EntryReader {
    /// Creates a reader for a table that ends at this address.
    pub(super) const fn new(end: u64) -> Self {
        Self { end, address: 0, valid: 0, bytes: ZEROS }
    }

    /// Reads the entry at an address. A block that isn't completely in memory is read entry by
    /// entry.
    pub(super) fn read(
        &mut self,
        address: u64,
        memory: &mut TableMemory<'_>,
    ) -> Result<u64, Errno> {
        if self.rest(address).is_empty() {
            let block = BLOCK as u64;
            let bytes = (block - address % block).min(self.end.saturating_sub(address));
            let bytes = usize::try_from(bytes).unwrap_or(0);
            let is_read = memory.memory.read(address, &mut self.bytes[..bytes]).is_ok();
            (self.address, self.valid) = (address, if is_read { bytes } else { 0 });
            if is_read {
                memory.note(address)?;
            }
        }
        match self.rest(address).first_chunk() {
            Some(entry) => Ok(u64::from_le_bytes(*entry)),
            None => memory.read_u64(address),
        }
    }

    /// Returns the part of the current block that starts at an address.
    fn rest(&self, address: u64) -> &[u8] {
        let offset = address.checked_sub(self.address);
        let offset = offset.and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.bytes[..self.valid].get(offset..)).unwrap_or_default()
    }
}

/// Remaining work budget for one save or restore.
#[derive(Debug)]
pub(crate) struct Budget {
    reads: u64,
    clears: u64,
    devices: u32,
    events: u32,
    is_exhausted: bool,
}

impl Budget {
    /// Creates the budget for a machine with these mapping limits.
    pub(crate) const fn new(devices: u32, events: u32) -> Self {
        let (reads, clears) = (MOST_ENTRIES, MOST_ENTRIES);
        Self { reads, clears, devices, events, is_exhausted: false }
    }

    /// Returns `true` if the budget did not suffice.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Charges one mapped device.
    pub(crate) fn map_device(&mut self) -> Result<(), Errno> {
        self.devices = self.charged(self.devices.checked_sub(1))?;
        Ok(())
    }

    /// Charges one mapped event.
    pub(crate) fn map_event(&mut self) -> Result<(), Errno> {
        self.events = self.charged(self.events.checked_sub(1))?;
        Ok(())
    }

    /// Charges one entry that is read.
    pub(crate) fn spend(&mut self) -> Result<(), Errno> {
        self.reads = self.charged(self.reads.checked_sub(1))?;
        Ok(())
    }

    fn charged<T>(&mut self, rest: Option<T>) -> Result<T, Errno> {
        self.is_exhausted |= rest.is_none();
        rest.ok_or(Errno::NoMemory)
    }

    /// Clears up to `entries` entries starting at `address`, within the budget. Doesn't write
    /// entries that are already clear, because a migration has to resend every page that is
    /// written.
    pub(crate) fn clear(
        &mut self,
        address: u64,
        entries: u64,
        memory: &mut TableMemory<'_>,
    ) -> Result<(), Errno> {
        let entries = entries.min(self.clears);
        self.clears -= entries;
        let (mut bytes, block) = (ZEROS, BLOCK as u64);
        for offset in (0..ENTRY * entries).step_by(BLOCK) {
            let count = usize::try_from(block.min(ENTRY * entries - offset)).unwrap_or(BLOCK);
            let (part, at) = (&mut bytes[..count], address + offset);
            memory.read(at, part)?;
            if *part != ZEROS[..count] {
                memory.write(at, &ZEROS[..count])?;
            }
        }
        Ok(())
    }
}
