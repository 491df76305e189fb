//! Consecutive LPIs of one owner.

use core::num::NonZeroU32;
use gic_arch::Lpi;

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
