//! Translation tables of one address space (the architecture's VMSAv8-64, first stage): three
//! levels of 512 entries, for 39 bits of address. RAM is at its own address in blocks of 2 MiB.
//! Doorbells are pages in a window where no device of `virt` is, so that one which is reached was
//! translated.

use core::ops::Range;
use gic_driver::Table;
use irq_domain::layer::IovaConstraint;
use smmu::{SmmuError, memory, store};

/// Window for doorbells, as devices see them: within reach of 32 address bits.
pub(crate) const DOORBELL_WINDOW: Range<u64> = 0x20_0000..0x40_0000;

const ENTRIES: usize = 512;
const PAGE: u64 = 0x1000;
const BLOCK: u64 = 0x20_0000;
const GIGABYTE: u64 = 1 << 30;

const TABLE: u64 = 0b11;
const LEAF_BLOCK: u64 = 0b01;
const LEAF_PAGE: u64 = 0b11;
/// Readable and writable without privilege, as PCI's accesses are; never executed; of this address
/// space alone.
const READ_WRITE: u64 = 1 << 6 | 1 << 10 | 1 << 11 | 3 << 53;
/// Attributes 0, inner shareable, and 1 of the context.
const NORMAL: u64 = 3 << 8;
const DEVICE: u64 = 1 << 2;

/// The tables.
pub(super) struct AddressSpace {
    root: Table,
    /// Kept for as long as the SMMU walks them.
    _ram: Table,
    _low: Table,
    doorbells: Table,
    used: [bool; ENTRIES],
}

impl AddressSpace {
    /// With `memory` in it, which lies in one gigabyte, not the first.
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
        Ok(Self { root, _ram: ram, _low: low, doorbells, used: [false; ENTRIES] })
    }

    /// Returns the address of the first level.
    pub(super) fn root(&self) -> u64 {
        self.root.address
    }

    /// Maps a page of doorbells. Returns its address.
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

    /// Undoes [`map_doorbell`](Self::map_doorbell). What the SMMU remembers of it is the caller's
    /// to end.
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
