//! Translation tables (DDI 0487, D8), from guest physical addresses to physical addresses. The
//! memory of a guest's PCI functions is mapped where the guest places it. A CPU walks stage 2
//! tables; an SMMU may walk either stage. Accesses to unmapped addresses trap.

use crate::ram::Ram;
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

const ENTRIES: usize = 512;
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Number of address bits that one entry covers, for the levels that may contain blocks (1 and 2).
const BLOCK_SHIFTS: [u32; 2] = [30, 21];
/// Number of address bits that one entry of the last level covers.
const PAGE_SHIFT: u32 = 12;
/// Addresses have 39 bits, so the first level is a single table.
const ADDRESS_BITS: u64 = 39;

const VALID: u64 = 1;
/// Descriptor of a table, or of a page at the last level.
const TABLE_OR_PAGE: u64 = 1 << 1;
const ADDRESS: u64 = (1 << 48) - (1 << 12);
const ACCESSED: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const NEVER_EXECUTED: u64 = 1 << 54;
/// Stage 2: readable, and writable.
const READ: u64 = 1 << 6;
const READ_WRITE: u64 = READ | 1 << 7;
/// Stage 1: readable and writable without privilege, as PCI devices require; not global; never
/// executable with privilege.
const UNPRIVILEGED_READ_WRITE: u64 = 1 << 6 | 1 << 11 | 1 << 53;

/// Translation stage for which tables are created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Stage 1, with attributes as defined by `smmu::Context`.
    One,
    /// Stage 2.
    Two,
}

/// Kind of memory in a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// Cacheable RAM.
    Ram,
    /// Device registers.
    Device,
    /// Cacheable memory that a guest's vCPUs must not write.
    Rom,
    /// Device registers that a guest's vCPUs must not write.
    ReadOnlyDevice,
}

impl Memory {
    const fn attributes(self, stage: Stage) -> u64 {
        let common = VALID | ACCESSED;
        match (stage, self) {
            (Stage::One, Self::Ram | Self::Rom) => {
                common | UNPRIVILEGED_READ_WRITE | NEVER_EXECUTED | INNER_SHAREABLE
            }
            (Stage::One, Self::Device | Self::ReadOnlyDevice) => {
                common | UNPRIVILEGED_READ_WRITE | NEVER_EXECUTED | 1 << 2
            }
            (Stage::Two, Self::Ram) => common | READ_WRITE | INNER_SHAREABLE | 0b1111 << 2,
            (Stage::Two, Self::Device) => common | READ_WRITE | NEVER_EXECUTED | 0b0001 << 2,
            (Stage::Two, Self::Rom) => common | READ | INNER_SHAREABLE | 0b1111 << 2,
            (Stage::Two, Self::ReadOnlyDevice) => common | READ | NEVER_EXECUTED | 0b0001 << 2,
        }
    }
}

/// Returns the number of a guest's address space. The number is used as the VMID, which has 8 bits,
/// and is never 0.
pub(crate) const fn space(guest: usize) -> u8 {
    guest as u8 + 1
}

/// Descriptors are stored atomically, because a CPU may walk the table at any time.
#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    fn new() -> Box<Self> {
        Box::new(Self([const { AtomicU64::new(0) }; ENTRIES]))
    }

    /// Returns the entry for an address, where each entry covers `1 << shift` bytes.
    fn entry(&self, address: u64, shift: u32) -> &AtomicU64 {
        &self.0[(address >> shift) as usize % ENTRIES]
    }
}

/// The tables of an address space. They stay in use until the machine ends.
pub(crate) struct TranslationTables {
    root: &'static Table,
    stage: Stage,
}

impl TranslationTables {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { root: Box::leak(Table::new()), stage }
    }

    /// Maps a guest's RAM.
    pub(crate) fn map_ram(&mut self, ram: &Ram) {
        self.map(ram.guest.clone(), ram.physical, Memory::Ram);
    }

    /// Maps whole pages to consecutive physical addresses, using the largest blocks that fit.
    fn map(&mut self, range: Range<u64>, physical: u64, memory: Memory) {
        assert!((range.start | range.end | physical).is_multiple_of(PAGE));
        assert!(range.end <= 1 << ADDRESS_BITS, "addresses are limited to {ADDRESS_BITS} bits");
        let (mut address, attributes) = (range.start, memory.attributes(self.stage));
        while address < range.end {
            let to = physical + (address - range.start);
            address += map_one(self.root, address, range.end - address, (to, attributes));
        }
    }

    /// Maps a page at `address`, where the guest must not have RAM.
    pub(crate) fn map_page(&mut self, address: u64, physical: u64, memory: Memory) {
        let attributes = memory.attributes(self.stage);
        map_one(self.root, address, PAGE, (physical, attributes));
    }

    /// Removes all pages from the blocks that overlap a range. The caller must invalidate the TLBs
    /// of all CPUs before the next change.
    pub(crate) fn unmap_pages(&mut self, range: &Range<u64>) {
        let [outer, inner] = BLOCK_SHIFTS;
        for address in (range.start >> inner << inner..range.end).step_by(1 << inner) {
            let Some(table) = table(self.root.entry(address, outer)) else { continue };
            let entry = table.entry(address, inner);
            if entry.load(SeqCst) & TABLE_OR_PAGE != 0 {
                entry.fetch_and(!VALID, SeqCst);
            }
        }
    }

    /// Returns the address of the first-level table.
    pub(crate) fn root(&self) -> u64 {
        core::ptr::from_ref(self.root).expose_provenance() as u64
    }
}

/// `VTCR_EL2`: 39-bit input and 40-bit output addresses, 4 KiB pages, walks from level 1, cacheable
/// and inner shareable.
pub(crate) const VTCR: u64 =
    1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | (64 - ADDRESS_BITS);

/// Maps one block or page at `address` of at most `bytes` bytes. Returns its size.
fn map_one(root: &Table, address: u64, bytes: u64, (physical, attributes): (u64, u64)) -> u64 {
    let (mut table, descriptor) = (root, physical | attributes);
    for shift in BLOCK_SHIFTS {
        let block = 1 << shift;
        let entry = table.entry(address, shift);
        let is_free = entry.load(SeqCst) == 0;
        if is_free && (address | physical).is_multiple_of(block) && bytes >= block {
            entry.store(descriptor, SeqCst);
            return block;
        }
        table = below(entry);
    }
    table.entry(address, PAGE_SHIFT).store(descriptor | TABLE_OR_PAGE, SeqCst);
    PAGE
}

/// Returns the table below an entry. Allocates the table if the entry has none, and empties it if
/// its pages were removed.
fn below(entry: &AtomicU64) -> &Table {
    let descriptor = entry.load(SeqCst);
    if descriptor == 0 {
        let table = core::ptr::from_mut(Box::leak(Table::new())).expose_provenance();
        entry.store(table as u64 | VALID | TABLE_OR_PAGE, SeqCst);
    }
    let table = table(entry).expect("ranges of different memory do not overlap");
    if descriptor & (VALID | TABLE_OR_PAGE) == TABLE_OR_PAGE {
        // No CPU walks a table without a valid entry.
        for page in &table.0 {
            page.store(0, SeqCst);
        }
        entry.fetch_or(VALID, SeqCst);
    }
    table
}

/// Returns the table that an entry refers to, if it is not empty and not a block.
fn table(entry: &AtomicU64) -> Option<&Table> {
    let descriptor = entry.load(SeqCst);
    let table = core::ptr::with_exposed_provenance::<Table>((descriptor & ADDRESS) as usize);
    // SAFETY: `below` allocated the table, which is never freed.
    (descriptor & TABLE_OR_PAGE != 0).then(|| unsafe { &*table })
}
