//! Allocates SPIs from one range.

use crate::{Alignment, BlockAllocator, BlockError};
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::try_collect;
use gic_arch::IntId;
use msi_types::{Cpu, HwIrq};

/// Consecutive SPIs or extended SPIs that a doorbell can make pending.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpiRange {
    /// INTID of the first SPI.
    pub first: HwIrq,
    /// Number of SPIs.
    pub count: NonZeroU16,
}

impl SpiRange {
    /// Returns the INTID after the last SPI, or `None` on overflow.
    pub fn end(self) -> Option<u32> {
        self.first.get().checked_add(self.count.get().into())
    }

    /// Returns `true` if the ranges share an INTID.
    pub fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first.get()) + u64::from(range.count.get());
        u64::from(self.first.get()) < end(other) && u64::from(other.first.get()) < end(self)
    }
}

/// Returns `true` if the range contains only SPIs, or only extended SPIs.
pub(crate) fn check_range(range: SpiRange) -> bool {
    let first = IntId::from(range.first);
    let last = range.end().map(|end| IntId::new(end - 1));
    first.is_shared() && last.is_some_and(|last| last.class() == first.class())
}

/// A range's allocated SPIs and their target CPUs.
#[derive(Debug)]
pub(crate) struct RangeAllocator {
    first: HwIrq,
    allocator: BlockAllocator,
    targets: Vec<Cpu>,
}

impl RangeAllocator {
    pub(crate) fn new(range: SpiRange) -> Result<Self, BlockError> {
        let SpiRange { first, count } = range;
        let allocator = BlockAllocator::new(first.get(), count.get().into())?;
        let targets = try_collect(core::iter::repeat_n(Cpu::default(), count.get().into()))
            .map_err(|_| BlockError::NoMemory { count: count.get().into() })?;
        Ok(Self { first, allocator, targets })
    }

    /// Allocates SPIs. Returns `None` if the range has no suitable free block.
    pub(super) fn allocate(&mut self, count: NonZeroU16, align: Alignment) -> Option<HwIrq> {
        self.allocator.allocate(count.into(), align).ok().map(HwIrq::new)
    }

    /// Frees SPIs. No-op if the SPIs belong to another range.
    pub(super) fn free(&mut self, first: HwIrq, count: NonZeroU16) {
        // A block can't be freed twice, because its type is not `Clone`.
        let _ = self.allocator.free(first.get(), count.into());
    }

    /// Returns `true` if the SPI belongs to this range and is allocated.
    pub(super) fn owns(&self, hwirq: HwIrq) -> bool {
        self.allocator.is_allocated(hwirq.get())
    }

    pub(super) fn target(&self, hwirq: HwIrq) -> Option<Cpu> {
        self.targets.get(self.index(hwirq)?).copied()
    }

    /// Records an SPI's new target and returns the old one.
    pub(super) fn retarget(&mut self, hwirq: HwIrq, cpu: Cpu) -> Option<Cpu> {
        let index = self.index(hwirq)?;
        Some(core::mem::replace(self.targets.get_mut(index)?, cpu))
    }

    fn index(&self, hwirq: HwIrq) -> Option<usize> {
        let index = hwirq.get().checked_sub(self.first.get())?;
        self.owns(hwirq).then_some(index as usize)
    }
}
