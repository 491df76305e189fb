//! Translation tables (DDI 0487, D8), from guest physical addresses to physical addresses. The
//! memory of a guest's PCI functions is mapped where the guest places it. A CPU walks stage 2
//! tables; an SMMU may walk either stage. Accesses to unmapped addresses trap.

use crate::ram::Ram;
use crate::vmid::Vmid;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

const ENTRIES: usize = 512;
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Number of address bits that one entry covers, for the levels that may contain blocks (1 and 2).
const BLOCK_SHIFTS: [u32; 2] = [30, 21];
/// Number of bytes that a table of the last level covers.
const BLOCK: u64 = 1 << BLOCK_SHIFTS[1];
/// Number of address bits that one entry of the last level covers.
const PAGE_SHIFT: u32 = 12;
/// Addresses have 40 bits, so that the guest can reach `virt`'s 64-bit window for PCI. The first
/// level of stage 2 consists of two concatenated tables. Stage 1 has only the first of them, and
/// thus 39 bits.
const ADDRESS_BITS: u64 = 40;

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
enum Stage {
    One,
    Two,
}

/// Kind of memory in a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
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
    /// Returns `true` if a guest's vCPUs may write to it.
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::Ram | Self::Device)
    }

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

/// Descriptors are stored atomically, because a CPU may walk the table at any time.
#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    /// Returns the entry for an address, where each entry covers `1 << shift` bytes.
    fn entry(&self, address: u64, shift: u32) -> &AtomicU64 {
        &self.0[(address >> shift) as usize % ENTRIES]
    }
}

/// The concatenated tables of the first level, aligned to their size.
#[repr(C, align(8192))]
struct Root([Table; 2]);

impl Root {
    fn entry(&self, address: u64) -> &AtomicU64 {
        let shift = BLOCK_SHIFTS[0];
        let table = &self.0[(address >> shift) as usize / ENTRIES % self.0.len()];
        table.entry(address, shift)
    }
}

/// A stage 2 and its VMID, as `VTTBR_EL2` contains them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vttbr(pub(crate) u64);

/// The tables of an address space. They stay in use until the machine ends.
pub struct TranslationTables {
    root: &'static Root,
    stage: Stage,
    /// Blocks in which pages are mapped. Their number is limited by the memory of the guest's
    /// devices.
    blocks: Vec<u64>,
    /// Tables of the last level that are not in use. Otherwise, a guest that moves its devices
    /// through the 64-bit window would use more and more memory.
    spare: Vec<&'static Table>,
}

impl TranslationTables {
    /// Creates stage 1 tables that map nothing, with attributes as defined by `smmu::Context`.
    pub fn stage_1() -> Self {
        Self::new(Stage::One)
    }

    /// Creates stage 2 tables that map nothing.
    pub fn stage_2() -> Self {
        Self::new(Stage::Two)
    }

    fn new(stage: Stage) -> Self {
        let root = Box::new(Root([const { Table::new() }; 2]));
        Self { root: Box::leak(root), stage, blocks: Vec::new(), spare: Vec::new() }
    }

    /// Maps a guest's RAM.
    pub fn map_ram(&mut self, ram: &Ram) {
        self.map(ram.guest.clone(), ram.physical, Memory::Ram);
    }

    /// Maps whole pages to consecutive physical addresses, using the largest blocks that fit.
    fn map(&mut self, range: Range<u64>, physical: u64, memory: Memory) {
        assert!((range.start | range.end | physical).is_multiple_of(PAGE));
        assert!(range.end <= 1 << ADDRESS_BITS, "addresses are limited to {ADDRESS_BITS} bits");
        let (mut address, attributes) = (range.start, memory.attributes(self.stage));
        while address < range.end {
            let to = physical + (address - range.start);
            address += self.map_one(address, range.end - address, to | attributes);
        }
    }

    /// Maps a page at `address`, where the guest must not have RAM.
    pub fn map_page(&mut self, address: u64, physical: u64, memory: Memory) {
        let block = address & !(BLOCK - 1);
        if !self.blocks.contains(&block) {
            self.blocks.push(block);
        }
        self.map_one(address, PAGE, physical | memory.attributes(self.stage));
    }

    /// Removes all pages from the blocks that overlap a range. The caller must invalidate the TLBs
    /// of all CPUs before the next page is mapped.
    pub fn unmap_pages(&mut self, range: &Range<u64>) {
        let Self { root, blocks, spare, .. } = self;
        blocks.retain(|block| {
            let is_kept = *block >= range.end || block + BLOCK <= range.start;
            if !is_kept && let Some(tables) = table(root.entry(*block)) {
                let entry = tables.entry(*block, BLOCK_SHIFTS[1]);
                spare.extend(table(entry));
                entry.store(0, SeqCst);
            }
            is_kept
        });
    }

    /// Returns the address of the first-level table.
    pub fn root(&self) -> u64 {
        core::ptr::from_ref(self.root).expose_provenance() as u64
    }

    /// Returns the value of `VTTBR_EL2` for these stage 2 tables. No other tables may use the VMID.
    ///
    /// # Panics
    /// Panics if the tables are of stage 1.
    pub fn vttbr(&self, vmid: Vmid) -> Vttbr {
        assert_eq!(self.stage, Stage::Two, "`VTTBR_EL2` refers to stage 2 tables");
        Vttbr(self.root() | u64::from(vmid.get()) << 48)
    }

    /// Maps one block or page at `address` of at most `bytes` bytes. Returns its size.
    fn map_one(&mut self, address: u64, bytes: u64, descriptor: u64) -> u64 {
        let mut entry = self.root.entry(address);
        for (shift, below) in BLOCK_SHIFTS.into_iter().zip([BLOCK_SHIFTS[1], PAGE_SHIFT]) {
            let block = 1 << shift;
            let is_free = entry.load(SeqCst) == 0;
            let is_aligned = (address | descriptor & ADDRESS).is_multiple_of(block);
            if is_free && is_aligned && bytes >= block {
                entry.store(descriptor, SeqCst);
                return block;
            }
            entry = self.below(entry).entry(address, below);
        }
        entry.store(descriptor | TABLE_OR_PAGE, SeqCst);
        PAGE
    }

    /// Returns the table below an entry, which it provides if the entry has none.
    fn below(&mut self, entry: &AtomicU64) -> &'static Table {
        if entry.load(SeqCst) == 0 {
            let new = self.spare.pop().unwrap_or_else(|| Box::leak(Box::new(Table::new())));
            // No CPU walks a spare table.
            new.0.iter().for_each(|page| page.store(0, SeqCst));
            let address = core::ptr::from_ref(new).expose_provenance() as u64;
            entry.store(address | VALID | TABLE_OR_PAGE, SeqCst);
        }
        table(entry).expect("ranges of different memory do not overlap")
    }
}

/// `VTCR_EL2`: 40-bit input and output addresses, 4 KiB pages, walks from level 1, cacheable and
/// inner shareable.
pub const VTCR: u64 = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | (64 - ADDRESS_BITS);

/// Returns the table that an entry refers to, if it is not empty and not a block.
fn table(entry: &AtomicU64) -> Option<&'static Table> {
    let descriptor = entry.load(SeqCst);
    let table = core::ptr::with_exposed_provenance::<Table>((descriptor & ADDRESS) as usize);
    // SAFETY: `below` allocated the table, which is never freed.
    (descriptor & TABLE_OR_PAGE != 0).then(|| unsafe { &*table })
}
