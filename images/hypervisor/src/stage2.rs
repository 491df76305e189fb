//! Stage 2 (DDI 0487, D8): from the guest's physical addresses to the machine's, which are the
//! same. What is not mapped traps.

use alloc::boxed::Box;
use core::ops::Range;

const ENTRIES: usize = 512;
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Address bits below an entry of the levels that may hold blocks: 1 and 2.
const BLOCK_SHIFTS: [u32; 2] = [30, 21];
/// The same of the last level.
const PAGE_SHIFT: u32 = 12;
/// 39 bits of addresses: one table of the first level.
const ADDRESS_BITS: u64 = 39;

const VALID: u64 = 1;
/// A table, or a page at the last level.
const TABLE_OR_PAGE: u64 = 1 << 1;
const ADDRESS: u64 = (1 << 48) - (1 << 12);
const ACCESSED: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const READ_WRITE: u64 = 3 << 6;
const NEVER_EXECUTED: u64 = 1 << 54;

/// The memory behind a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// RAM, cacheable.
    Ram,
    /// A device's registers.
    Device,
}

impl Memory {
    const fn attributes(self) -> u64 {
        let common = VALID | ACCESSED | READ_WRITE;
        match self {
            Self::Ram => common | INNER_SHAREABLE | 0b1111 << 2,
            Self::Device => common | NEVER_EXECUTED | 0b0001 << 2,
        }
    }
}

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// A guest's tables. They are made before the guest runs, and never change or go away.
pub(crate) struct Stage2 {
    root: Box<Table>,
}

impl Stage2 {
    pub(crate) fn new() -> Self {
        Self { root: Box::new(Table([0; ENTRIES])) }
    }

    /// Maps whole pages at their own addresses, by the largest blocks that fit.
    pub(crate) fn map(&mut self, range: Range<u64>, memory: Memory) {
        assert!(range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE));
        assert!(range.end <= 1 << ADDRESS_BITS, "stage 2 reaches {ADDRESS_BITS} bits");
        let mut address = range.start;
        while address < range.end {
            address += map_one(&mut self.root, address, range.end - address, memory);
        }
    }

    /// `VTTBR_EL2`, with a VMID of 8 bits. The tables stay for ever.
    pub(crate) fn leak(self, vmid: u64) -> u64 {
        let root: &'static Table = Box::leak(self.root);
        core::ptr::from_ref(root).expose_provenance() as u64 | (vmid & 0xff) << 48
    }
}

/// `VTCR_EL2`: 39 bits in and 40 out, 4 KiB pages, walks from level 1, cacheable and inner
/// shareable.
pub(crate) const VTCR: u64 =
    1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | (64 - ADDRESS_BITS);

/// Maps one block or page at `address`, of at most so many bytes. Says how many it has.
fn map_one(root: &mut Table, address: u64, bytes: u64, memory: Memory) -> u64 {
    let index = |shift: u32| (address >> shift) as usize % ENTRIES;
    let mut table = root;
    for shift in BLOCK_SHIFTS {
        let block = 1 << shift;
        let entry = &mut table.0[index(shift)];
        if *entry == 0 && address.is_multiple_of(block) && bytes >= block {
            *entry = address | memory.attributes();
            return block;
        }
        table = below(entry);
    }
    table.0[index(PAGE_SHIFT)] = address | memory.attributes() | TABLE_OR_PAGE;
    PAGE
}

/// The table below an entry, which has none yet or one of [`below`]'s.
fn below(entry: &mut u64) -> &mut Table {
    if *entry == 0 {
        let table = Box::into_raw(Box::new(Table([0; ENTRIES])));
        *entry = table.expose_provenance() as u64 | VALID | TABLE_OR_PAGE;
    }
    assert!(*entry & TABLE_OR_PAGE != 0, "ranges of different memory overlap");
    let table = core::ptr::with_exposed_provenance_mut((*entry & ADDRESS) as usize);
    // SAFETY: it was made above, is never freed, and this entry is the only way to it.
    unsafe { &mut *table }
}
