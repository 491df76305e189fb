//! Allocates LPIs, and keeps track of LPIs left pending by a previous kernel.

use super::LpiRange;
use super::stale::{Stale, StaleAt};
use crate::block_allocator::BlockAllocator;
use crate::{Alignment, BlockError};
use core::num::NonZeroU32;
use core::ops::Range;
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
