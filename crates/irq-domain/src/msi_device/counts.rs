//! How many vectors a device asks for: the most first, then less.

use super::State;
use crate::error::MsiDeviceError;
use core::ops::RangeInclusive;
use msi_types::Shape;

/// The counts that are acceptable.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) shape: Shape,
    pub(super) most: u16,
    pub(super) least: u16,
}

impl Counts {
    pub(super) fn new(
        shape: Shape,
        wanted: RangeInclusive<u16>,
        state: &State,
        free: usize,
    ) -> Result<Self, MsiDeviceError> {
        let (min, max) = wanted.into_inner();
        let free = u16::try_from(free).unwrap_or(u16::MAX);
        if shape == Shape::AlignedGroup && !state.vectors.is_empty() {
            return Err(MsiDeviceError::GroupNotFirst);
        }
        if min > free {
            return Err(MsiDeviceError::TooFewSlots { free, wanted: min });
        }
        let most = match shape {
            Shape::Independent => max.min(free),
            Shape::AlignedGroup => power_of_two_up_to(max.min(free)),
        };
        if most < min || most == 0 {
            return Err(MsiDeviceError::BadCount { min, max });
        }
        Ok(Self { shape, most, least: min.max(1) })
    }

    pub(super) fn less_than(self, count: u16) -> Option<u16> {
        let less = match self.shape {
            Shape::Independent => (count / 2).max(self.least),
            Shape::AlignedGroup => count / 2,
        };
        (less >= self.least && less < count).then_some(less)
    }
}

fn power_of_two_up_to(limit: u16) -> u16 {
    limit.checked_ilog2().map_or(0, |log2| 1 << log2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_shrink_by_powers_of_two_down_to_the_least() {
        let counts = Counts { shape: Shape::AlignedGroup, most: 16, least: 3 };
        assert_eq!(counts.less_than(16), Some(8));
        assert_eq!(counts.less_than(8), Some(4));
        assert_eq!(counts.less_than(4), None);
    }

    #[test]
    fn independent_vectors_shrink_to_exactly_the_least() {
        let counts = Counts { shape: Shape::Independent, most: 10, least: 4 };
        assert_eq!(counts.less_than(10), Some(5));
        assert_eq!(counts.less_than(5), Some(4));
        assert_eq!(counts.less_than(4), None);
    }

    #[test]
    fn the_power_of_two_up_to_a_limit_never_exceeds_it() {
        assert_eq!([0, 1, 2, 3, 31, 32, u16::MAX].map(power_of_two_up_to), [0, 1, 2, 2, 16, 32, 0x8000]);
    }
}
