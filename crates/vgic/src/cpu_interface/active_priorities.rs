//! Active priorities for one group.

/// Set of group priority numbers that caches its highest priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ActivePriorities {
    /// One bit per group priority. The lowest bit is the highest priority.
    bits: [u64; 2],
    /// Number of the lowest set bit, or [`NONE`](Self::NONE).
    first: u8,
}

impl ActivePriorities {
    /// Marker for an empty set. The marker is greater than every group priority number.
    pub(super) const NONE: u8 = 128;

    /// Creates a set from its bits.
    pub(super) const fn new(bits: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "each word has half of the bits")]
        Self::of_words([bits as u64, (bits >> 64) as u64])
    }

    const fn of_words(bits: [u64; 2]) -> Self {
        let first = match bits {
            [0, 0] => Self::NONE as u32,
            [0, high] => 64 + high.trailing_zeros(),
            [low, _] => low.trailing_zeros(),
        };
        Self { bits, first: first.to_le_bytes()[0] }
    }

    /// Creates a set that contains only the group priority with this number, or an empty set if the
    /// number is not less than [`NONE`](Self::NONE).
    pub(super) const fn of_first(number: u8) -> Self {
        Self::new(if number < Self::NONE { 1 << number } else { 0 })
    }

    pub(super) const fn bits(self) -> u128 {
        self.bits[0] as u128 | (self.bits[1] as u128) << 64
    }

    /// Returns the number of the highest group priority, or [`NONE`](Self::NONE).
    pub(super) const fn first(self) -> u8 {
        self.first
    }

    /// Adds a group priority, by number. It must be higher than all others in the set.
    pub(super) fn insert_first(&mut self, number: u8) {
        debug_assert!(number < self.first, "the new priority must preempt");
        self.bits[usize::from(number >> 6 & 1)] |= 1 << (number & 63);
        self.first = number;
    }

    /// Removes the highest group priority.
    pub(super) const fn remove_first(&mut self) {
        let [low, high] = self.bits;
        if low == 0 {
            self.bits[1] = high & high.wrapping_sub(1);
        } else {
            self.bits[0] = low & (low - 1);
        }
        self.first = Self::of_words(self.bits).first;
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_active_priority_is_the_lowest_set_bit(
            bits: u128,
            added in proptest::collection::vec(0u8..128, 0..9),
        ) {
            let mut active = ActivePriorities::new(bits);
            let mut left = bits;
            for number in added {
                if number < active.first() {
                    active.insert_first(number);
                    left |= 1 << number;
                }
            }
            for _ in 0..4 {
                prop_assert_eq!(active.bits(), left);
                prop_assert_eq!(u32::from(active.first()), left.trailing_zeros());
                active.remove_first();
                left &= left.wrapping_sub(1);
            }
        }
    }
}
