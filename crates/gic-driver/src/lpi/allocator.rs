//! Allocates LPIs, and keeps track of LPIs left pending by a previous kernel.
//!
//! An adopted pending table must not be cleared in memory, because its redistributor is using the
//! table. Instead, the sender must clear each LPI at each redistributor with an adopted table
//! before the LPI's first owner uses it. A bit per LPI records that the LPI was cleared.

use crate::block_allocator::BlockAllocator;
use crate::{Alignment, BlockError};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;
use doorbell_fallible::try_collect;
use gic_arch::Lpi;

/// LPI allocator, based on a [`BlockAllocator`].
#[derive(Debug)]
pub(super) struct LpiAllocator {
    pub(super) blocks: BlockAllocator,
    /// LPIs that must be cleared before their first use, if tables were adopted.
    stale: Option<Stale>,
}

/// Error for a redistributor at which some allocated LPIs have not been cleared.
#[derive(Debug)]
pub(super) struct InUse;

impl LpiAllocator {
    /// Creates an allocator for the lowest `count` LPIs, all free.
    pub(super) fn new(count: u32, stale: Option<Stale>) -> Result<Self, BlockError> {
        Ok(Self { blocks: BlockAllocator::new(Lpi::FIRST.get(), count)?, stale })
    }

    /// Adds a redistributor whose pending table was adopted. Fails if an LPI is already allocated.
    pub(super) fn add_stale(&mut self, at: StaleAt) -> Result<(), InUse> {
        if self.blocks.available() < self.blocks.capacity() {
            return Err(InUse);
        }
        self.note_stale(at);
        Ok(())
    }

    /// Adds a redistributor whose pending table was adopted, even if LPIs are already allocated.
    /// This is for direct LPIs, which can be cleared at the redistributor even while they are
    /// allocated.
    pub(super) fn note_stale(&mut self, at: StaleAt) {
        if let Some(stale) = &mut self.stale {
            stale.add(at);
        }
    }

    /// Removes a redistributor whose pending table has been replaced or emptied.
    pub(super) fn forget_stale(&mut self, address: u64) {
        if let Some(stale) = &mut self.stale {
            stale.remove(address);
        }
    }

    /// Returns the `index`-th redistributor at which LPIs may be pending for a previous kernel.
    pub(super) fn stale_at(&self, index: usize) -> Option<StaleAt> {
        self.stale.as_ref()?.get(index)
    }

    /// Returns `true` if none of these LPIs can be pending for a previous kernel.
    pub(super) fn are_clear(&self, range: &LpiRange) -> bool {
        self.stale.as_ref().is_none_or(|stale| stale.is_cleared(range))
    }

    pub(super) fn note_cleared(&mut self, range: &LpiRange) {
        if let Some(stale) = &mut self.stale {
            stale.note_cleared(range);
        }
    }

    pub(super) fn allocate(
        &mut self,
        count: NonZeroU32,
        align: Alignment,
        within: Range<u32>,
    ) -> Result<LpiRange, BlockError> {
        let first = self.blocks.allocate_within(count, align, within)?;
        let first = Lpi::try_from(first)
            .map_err(|_| BlockError::OutOfRange { first, count: count.get() })?;
        Ok(LpiRange::from_parts(first, count))
    }
}

/// Consecutive LPIs held by one owner. The type is not `Clone`, because a value owns its LPIs, and
/// [`Lpis::free`](super::Lpis::free) consumes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "LPIs stay allocated until the range is freed"]
pub struct LpiRange {
    first: Lpi,
    count: NonZeroU32,
}

impl LpiRange {
    /// Creates a range from its parts, for owners that keep their LPIs as plain numbers.
    /// [`Lpis::free`](super::Lpis::free) checks that all of them are allocated, but cannot check
    /// their owner.
    pub const fn from_parts(first: Lpi, count: NonZeroU32) -> Self {
        Self { first, count }
    }

    /// Splits the range into its first LPI and its count, for [`from_parts`](Self::from_parts).
    pub const fn into_parts(self) -> (Lpi, NonZeroU32) {
        (self.first, self.count)
    }

    /// Returns the lowest LPI.
    pub const fn first(&self) -> Lpi {
        self.first
    }

    /// Returns the number of LPIs.
    pub const fn count(&self) -> NonZeroU32 {
        self.count
    }

    /// Returns the LPI at `index`, or `None` if `index` is beyond the end.
    pub fn get(&self, index: u32) -> Option<Lpi> {
        if index < self.count.get() {
            Lpi::from_index(self.first.index().checked_add(index)?)
        } else {
            None
        }
    }

    /// Returns all LPIs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Lpi> {
        (0..self.count.get()).filter_map(|index| self.get(index))
    }
}

/// A redistributor whose pending table was adopted, with the two numbers that ITS commands may use
/// to refer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StaleAt {
    /// RD_base.
    pub(crate) address: u64,
    /// `GICR_TYPER.Processor_Number`.
    pub(crate) processor_number: u16,
}

/// Record of the redistributors at which LPIs may be pending for a previous kernel, and of the LPIs
/// that have been cleared there.
#[derive(Debug)]
pub(super) struct Stale {
    redistributors: Vec<StaleAt>,
    /// One bit per LPI, set after the LPI was cleared at all of `redistributors`.
    cleared: Vec<u64>,
}

impl Stale {
    /// Creates a record with room for this many LPIs and redistributors.
    pub(super) fn new(lpis: u32, redistributors: usize) -> Result<Self, TryReserveError> {
        let mut all = Vec::new();
        all.try_reserve_exact(redistributors)?;
        let cleared = try_collect(core::iter::repeat_n(0, lpis.div_ceil(u64::BITS) as usize))?;
        Ok(Self { redistributors: all, cleared })
    }

    /// Adds a redistributor at which no LPI has been cleared yet. This function doesn't allocate,
    /// because the list has room for all redistributors.
    pub(super) fn add(&mut self, at: StaleAt) {
        self.remove(at.address);
        self.redistributors.push(at);
        self.cleared.fill(0);
    }

    pub(super) fn remove(&mut self, address: u64) {
        self.redistributors.retain(|at| at.address != address);
    }

    pub(super) fn get(&self, index: usize) -> Option<StaleAt> {
        self.redistributors.get(index).copied()
    }

    pub(super) fn is_cleared(&self, range: &LpiRange) -> bool {
        range.iter().all(|lpi| {
            let (word, bit) = locate(lpi);
            self.cleared.get(word).is_some_and(|bits| bits & bit != 0)
        })
    }

    pub(super) fn note_cleared(&mut self, range: &LpiRange) {
        for (word, bit) in range.iter().map(locate) {
            if let Some(bits) = self.cleared.get_mut(word) {
                *bits |= bit;
            }
        }
    }
}

fn locate(lpi: Lpi) -> (usize, u64) {
    let index = lpi.index();
    ((index / u64::BITS) as usize, 1 << (index % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    #[test]
    fn noting_cleared_lpis_needs_no_heap() {
        let mut stale = Stale::new(100, 1).unwrap();
        let capacity = (stale.redistributors.capacity(), stale.cleared.capacity());
        let range = LpiRange::from_parts(Lpi::FIRST, NonZeroU32::new(70).unwrap());
        stale.add(StaleAt { address: 0x900_0000, processor_number: 0 });
        assert!(!stale.is_cleared(&range));
        stale.note_cleared(&range);
        assert!(stale.is_cleared(&range));
        assert_eq!((stale.redistributors.capacity(), stale.cleared.capacity()), capacity);
    }
}
