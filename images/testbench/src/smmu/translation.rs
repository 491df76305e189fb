//! Translation tables for one address space (VMSAv8-64, stage 1), with three levels of 512 entries
//! for 39-bit addresses. RAM is identity-mapped in blocks of 2 MiB. Doorbells are mapped as pages,
//! in a window where `virt` has no devices. So if a message arrives, it must have been translated.

use core::ops::Range;
use gic_driver::Table;
use irq_domain::layer::IovaConstraint;
use smmu::{SmmuError, load, memory, store};

/// Window for doorbells in the devices' address space, within reach of 32-bit addresses.
pub(crate) const DOORBELL_WINDOW: Range<u64> = 0x20_0000..0x40_0000;

const ENTRIES: usize = 512;
const PAGE: u64 = 0x1000;
const BLOCK: u64 = 0x20_0000;
const GIGABYTE: u64 = 1 << 30;

const VALID: u64 = 1;
/// Bits of an entry that contain an address.
const ADDRESS: u64 = 0xffff_ffff_f000;
const TABLE: u64 = 0b11;
const LEAF_BLOCK: u64 = 0b01;
const LEAF_PAGE: u64 = 0b11;
/// Unprivileged read and write access, as PCI devices require; never executable; not global.
const READ_WRITE: u64 = 1 << 6 | 1 << 10 | 1 << 11 | 3 << 53;
/// Attribute 0 of the context, inner shareable; and attribute 1.
const NORMAL: u64 = 3 << 8;
const DEVICE: u64 = 1 << 2;

/// The tables of an address space.
pub(super) struct AddressSpace {
    root: Table,
    /// Table that maps RAM in blocks. Entry `gigabyte` of the root points to this table.
    ram: Table,
    gigabyte: u64,
    /// Must stay allocated while the SMMU walks it.
    _low: Table,
    doorbells: Table,
    used: [bool; ENTRIES],
}

impl AddressSpace {
    /// Creates an address space that maps `memory`, which must be within one gigabyte other than
    /// the first.
    pub(super) fn new(memory_range: Range<u64>) -> Result<Self, SmmuError> {
        let level = || memory(PAGE, PAGE, "translations");
        let (root, ram, low, doorbells) = (level()?, level()?, level()?, level()?);
        let gigabyte = memory_range.start / GIGABYTE;
        if gigabyte == 0 || (memory_range.end - 1) / GIGABYTE != gigabyte {
            return Err(SmmuError::Lacks("RAM in one gigabyte"));
        }
        for block in (memory_range.start..memory_range.end).step_by(BLOCK as usize) {
            let place = block % GIGABYTE / BLOCK * 8;
            store(&ram, place, &[block | LEAF_BLOCK | READ_WRITE | NORMAL]);
        }
        store(&low, DOORBELL_WINDOW.start / BLOCK * 8, &[doorbells.address | TABLE]);
        store(&root, 0, &[low.address | TABLE]);
        store(&root, gigabyte * 8, &[ram.address | TABLE]);
        Ok(Self { root, ram, gigabyte, _low: low, doorbells, used: [false; ENTRIES] })
    }

    /// Returns the address of the first-level table.
    pub(super) fn root(&self) -> u64 {
        self.root.address
    }

    /// Translates an address by reading the tables in memory. Returns `None` if the address is not
    /// mapped.
    pub(super) fn translate(&self, address: u64) -> Option<u64> {
        let (table, index, size) = match index_of(address) {
            Some(index) => (&self.doorbells, index as u64, PAGE),
            None if address / GIGABYTE == self.gigabyte => {
                (&self.ram, address % GIGABYTE / BLOCK, BLOCK)
            }
            None => return None,
        };
        let entry = load(table, 8 * index);
        let mapped = entry & ADDRESS & !(size - 1);
        (entry & VALID != 0).then(|| mapped | address & (size - 1))
    }

    /// Maps a page with doorbells. Returns its address in the address space.
    pub(super) fn map_doorbell(
        &mut self,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str> {
        let index = match constraint {
            IovaConstraint::Within { .. } => {
                self.used.iter().position(|used| !used).ok_or("its window is full")?
            }
            IovaConstraint::At(at) => index_of(at).ok_or("it is not in its window")?,
        };
        if core::mem::replace(&mut self.used[index], true) {
            return Err("something is mapped there");
        }
        store(&self.doorbells, 8 * index as u64, &[page | LEAF_PAGE | READ_WRITE | DEVICE]);
        Ok(DOORBELL_WINDOW.start + PAGE * index as u64)
    }

    /// Unmaps the page that [`map_doorbell`](Self::map_doorbell) mapped at `at`. The caller must
    /// invalidate the SMMU's caches.
    pub(super) fn unmap_doorbell(&mut self, at: u64) {
        if let Some(index) = index_of(at) {
            self.used[index] = false;
            store(&self.doorbells, 8 * index as u64, &[0]);
        }
    }
}

fn index_of(at: u64) -> Option<usize> {
    DOORBELL_WINDOW.contains(&at).then(|| ((at - DOORBELL_WINDOW.start) / PAGE) as usize)
}
