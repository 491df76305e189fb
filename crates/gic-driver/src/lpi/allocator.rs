//! Blocks of LPIs.

use crate::{Alignment, BlockAllocator, BlockError};
use core::num::NonZeroU32;
use core::ops::Range;
use gic_arch::Lpi;

/// Consecutive LPIs that one owner holds. Not `Clone`: whoever has it owns them, and gives them back by
/// [`Lpis::free`](super::Lpis::free).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "LPIs stay allocated until the range is given back"]
pub struct LpiRange {
    first: Lpi,
    count: NonZeroU32,
}

impl LpiRange {
    /// For owners that keep their LPIs as plain numbers meanwhile: the range that [`first`](Self::first) and
    /// [`count`](Self::count) described. Freeing checks that all of them are allocated, not by whom.
    pub const fn from_parts(first: Lpi, count: NonZeroU32) -> Self {
        Self { first, count }
    }

    /// The same in parts, for [`from_parts`](Self::from_parts).
    pub const fn into_parts(self) -> (Lpi, NonZeroU32) {
        (self.first, self.count)
    }

    /// The lowest.
    pub const fn first(&self) -> Lpi {
        self.first
    }

    /// How many.
    pub const fn count(&self) -> NonZeroU32 {
        self.count
    }

    /// The LPI at `index`; `None` past the end.
    pub fn get(&self, index: u32) -> Option<Lpi> {
        if index < self.count.get() { Lpi::from_index(self.first.index().checked_add(index)?) } else { None }
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Lpi> {
        (0..self.count.get()).filter_map(|index| self.get(index))
    }
}

/// A [`BlockAllocator`] of LPIs.
#[derive(Debug)]
pub(super) struct LpiAllocator(BlockAllocator);

impl LpiAllocator {
    /// The `count` lowest LPIs, all free.
    pub(super) fn new(count: u32) -> Result<Self, BlockError> {
        BlockAllocator::new(Lpi::FIRST.get(), count).map(Self)
    }

    pub(super) fn allocate(
        &mut self,
        count: NonZeroU32,
        align: Alignment,
        within: Range<u32>,
    ) -> Result<LpiRange, BlockError> {
        let first = self.0.allocate_within(count, align, within)?;
        let first = Lpi::try_from(first).map_err(|_| BlockError::OutOfRange { first, count: count.get() })?;
        Ok(LpiRange { first, count })
    }

    pub(super) fn free(&mut self, first: Lpi, count: NonZeroU32) -> Result<(), BlockError> {
        self.0.free(first.get(), count)
    }

    pub(super) fn has_free_within(&self, within: Range<u32>) -> bool {
        self.0.has_free_within(within)
    }

    pub(super) fn available(&self) -> u32 {
        self.0.available()
    }
}
