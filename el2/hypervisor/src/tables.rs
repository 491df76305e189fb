//! Translation tables (DDI 0487, D8) that identity-map the guest's physical addresses. A CPU walks
//! stage 2 tables; an SMMU may walk either stage. Accesses to unmapped addresses trap.

use alloc::boxed::Box;
use core::ops::Range;

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
/// Stage 2: readable and writable.
const READ_WRITE: u64 = 3 << 6;
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
}

impl Memory {
    const fn attributes(self, stage: Stage) -> u64 {
        let common = VALID | ACCESSED;
        match (stage, self) {
            (Stage::One, Self::Ram) => {
                common | UNPRIVILEGED_READ_WRITE | NEVER_EXECUTED | INNER_SHAREABLE
            }
            (Stage::One, Self::Device) => {
                common | UNPRIVILEGED_READ_WRITE | NEVER_EXECUTED | 1 << 2
            }
            (Stage::Two, Self::Ram) => common | READ_WRITE | INNER_SHAREABLE | 0b1111 << 2,
            (Stage::Two, Self::Device) => common | READ_WRITE | NEVER_EXECUTED | 0b0001 << 2,
        }
    }
}

/// Returns the number of a guest's address space. The number is used as the VMID, which has 8 bits,
/// and is never 0.
pub(crate) const fn space(guest: usize) -> u8 {
    guest as u8 + 1
}

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// A guest's tables. The tables are created before the guest runs, and are never changed or freed.
pub(crate) struct TranslationTables {
    root: Box<Table>,
    stage: Stage,
}

impl TranslationTables {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { root: Box::new(Table([0; ENTRIES])), stage }
    }

    /// Identity-maps whole pages, using the largest blocks that fit.
    pub(crate) fn map(&mut self, range: Range<u64>, memory: Memory) {
        assert!(range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE));
        assert!(range.end <= 1 << ADDRESS_BITS, "addresses are limited to {ADDRESS_BITS} bits");
        let (mut address, attributes) = (range.start, memory.attributes(self.stage));
        while address < range.end {
            address += map_one(&mut self.root, address, range.end - address, attributes);
        }
    }

    /// Returns the address of the first-level table. The tables are never freed.
    pub(crate) fn leak(self) -> u64 {
        let root: &'static Table = Box::leak(self.root);
        core::ptr::from_ref(root).expose_provenance() as u64
    }
}

/// `VTCR_EL2`: 39-bit input and 40-bit output addresses, 4 KiB pages, walks from level 1, cacheable
/// and inner shareable.
pub(crate) const VTCR: u64 =
    1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | (64 - ADDRESS_BITS);

/// Maps one block or page at `address` of at most `bytes` bytes. Returns its size.
fn map_one(root: &mut Table, address: u64, bytes: u64, attributes: u64) -> u64 {
    let index = |shift: u32| (address >> shift) as usize % ENTRIES;
    let mut table = root;
    for shift in BLOCK_SHIFTS {
        let block = 1 << shift;
        let entry = &mut table.0[index(shift)];
        if *entry == 0 && address.is_multiple_of(block) && bytes >= block {
            *entry = address | attributes;
            return block;
        }
        table = below(entry);
    }
    table.0[index(PAGE_SHIFT)] = address | attributes | TABLE_OR_PAGE;
    PAGE
}

/// Returns the table below an entry. Allocates the table if the entry has none.
fn below(entry: &mut u64) -> &mut Table {
    if *entry == 0 {
        let table = Box::into_raw(Box::new(Table([0; ENTRIES])));
        *entry = table.expose_provenance() as u64 | VALID | TABLE_OR_PAGE;
    }
    assert!(*entry & TABLE_OR_PAGE != 0, "ranges of different memory overlap");
    let table = core::ptr::with_exposed_provenance_mut((*entry & ADDRESS) as usize);
    // SAFETY: the table was allocated above and is never freed. Only this entry points to the
    // table.
    unsafe { &mut *table }
}
