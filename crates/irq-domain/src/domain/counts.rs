//! The number of vectors that an allocation may grant.

use super::vector_table::VectorTable;
use crate::error::MsiDeviceError;
use core::ops::RangeInclusive;
use msi_types::Shape;

/// The range of acceptable counts.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) most: u16,
    pub(super) least: u16,
}

impl Counts {
    pub(super) fn new(
        shape: Shape,
        wanted: RangeInclusive<u16>,
        table: &VectorTable,
        free: usize,
    ) -> Result<Self, MsiDeviceError> {
        let (min, max) = wanted.into_inner();
        let free = u16::try_from(free).unwrap_or(u16::MAX);
        if shape == Shape::AlignedGroup && !table.is_empty() {
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
        Ok(Self { most, least: min.max(1) })
    }

    /// Returns the group sizes to try, largest first.
    pub(super) fn groups(self) -> impl Iterator<Item = u16> {
        core::iter::successors(Some(self.most), |count| Some(count / 2))
            .take_while(move |count| *count >= self.least)
    }
}

fn power_of_two_up_to(limit: u16) -> u16 {
    limit.checked_ilog2().map_or(0, |log2| 1 << log2)
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_sizes_halve_down_to_the_minimum_count() {
        let counts = Counts { most: 16, least: 3 };
        assert!(counts.groups().eq([16, 8, 4]));
    }

    #[test]
    fn a_count_is_rounded_down_to_a_power_of_two() {
        assert_eq!(
            [0, 1, 2, 3, 31, 32, u16::MAX].map(power_of_two_up_to),
            [0, 1, 2, 2, 16, 32, 0x8000]
        );
    }
}
