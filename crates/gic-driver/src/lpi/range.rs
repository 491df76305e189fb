//! Consecutive LPIs of one owner.

use core::num::NonZeroU32;
use gic_arch::Lpi;

/// Consecutive LPIs that one owner holds. Not `Clone`: the value owns them, and
/// [`Lpis::free`](super::Lpis::free) consumes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "LPIs stay allocated until the range is given back"]
pub struct LpiRange {
    first: Lpi,
    count: NonZeroU32,
}

impl LpiRange {
    /// For owners that keep their LPIs as plain numbers meanwhile: the range that
    /// [`first`](Self::first) and [`count`](Self::count) described. Freeing checks that all of them
    /// are allocated, not their owner.
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

    /// Number of LPIs.
    pub const fn count(&self) -> NonZeroU32 {
        self.count
    }

    /// The LPI at `index`; `None` past the end.
    pub fn get(&self, index: u32) -> Option<Lpi> {
        if index < self.count.get() {
            Lpi::from_index(self.first.index().checked_add(index)?)
        } else {
            None
        }
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Lpi> {
        (0..self.count.get()).filter_map(|index| self.get(index))
    }
}
