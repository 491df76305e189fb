//! The place of an entry's ready bit. A chunk's entries are 16 positions apart, so that no two of
//! them share a cache line. Their bits share a leaf, because a vCPU then finds a device's next
//! vector where it found the last.

use super::{BIT_MASK, FANOUT_BITS, bit};
use crate::lpi::entry_table::Position;

/// Log2 of the distance in positions between the entries of adjacent bits in a leaf.
const STRIDE_BITS: u32 = 4;
const STRIDE_MASK: u32 = (1 << STRIDE_BITS) - 1;

impl Position {
    /// Returns the number of the leaf.
    pub(super) const fn leaf(self) -> u32 {
        ((self.get() >> FANOUT_BITS) & !STRIDE_MASK) | (self.get() & STRIDE_MASK)
    }

    /// Returns the bit in the leaf.
    pub(super) const fn bit(self) -> u64 {
        bit(self.get() >> STRIDE_BITS)
    }

    /// Returns the position of the entry with the first bit in this leaf.
    pub(super) const fn first_in(leaf: u32) -> Self {
        Self::new((leaf & !STRIDE_MASK) << FANOUT_BITS | (leaf & STRIDE_MASK))
    }

    /// Returns the position of the entry with this bit, by number, in the leaf of which this is the
    /// [first](Self::first_in) position.
    pub(super) const fn at_bit(self, bit: u32) -> Self {
        Self::new(self.get() + ((bit & BIT_MASK) << STRIDE_BITS))
    }

    /// Returns the position of the entry with this bit, by number, in this leaf.
    pub(super) const fn at(leaf: u32, bit: u32) -> Self {
        Self::first_in(leaf).at_bit(bit)
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::lpi::entry_table::EntryIndex;
    use crate::lpi::itt::CHUNK_ENTRIES;
    use crate::lpi::ready_bitmap::{ENTRIES_PER_SUMMARY, MAX_POSITIONS};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_and_ready_bits_round_trip(number in 0..MAX_POSITIONS) {
            let position = Position::new(number);
            let (leaf, bit) = (position.leaf(), position.bit());
            prop_assert_eq!(Position::at(leaf, bit.trailing_zeros()), position);
            prop_assert_eq!(leaf >> FANOUT_BITS, number / ENTRIES_PER_SUMMARY);
        }

        #[test]
        fn the_ready_bits_of_a_chunk_share_a_leaf(
            chunk in 0..MAX_POSITIONS / CHUNK_ENTRIES,
            offset in 0..CHUNK_ENTRIES,
        ) {
            let first = EntryIndex::new(chunk * CHUNK_ENTRIES);
            prop_assert_eq!(first.offset(offset).position().leaf(), first.position().leaf());
        }
    }
}
