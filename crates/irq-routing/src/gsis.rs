//! GSI allocation. The lowest free GSI is allocated first, and an allocated GSI is not allocated
//! again until it has been released.

use crate::RouteError;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use msi_types::Gsi;

const BITS: u32 = u64::BITS;

/// Allocates the GSIs of a range.
#[derive(Debug)]
pub(crate) struct Gsis {
    /// One bit per GSI. A bit is set if its GSI is allocated or cannot be allocated.
    taken: Vec<u64>,
    first: u32,
    limit: u32,
    /// Index of a word before which all words are full.
    lowest: usize,
}

impl Gsis {
    pub(crate) fn new(Range { start: first, end: limit }: Range<u32>) -> Self {
        let words = limit.div_ceil(BITS) as usize;
        let mut gsis = Self { taken: vec![0; words], first, limit, lowest: 0 };
        let unreachable = (words as u64) * u64::from(BITS);
        (0..u64::from(first.min(limit))).chain(u64::from(limit)..unreachable).for_each(|number| {
            if let Ok(number) = u32::try_from(number) {
                gsis.take(Gsi::new(number));
            }
        });
        gsis
    }

    /// Allocates the lowest free GSI.
    pub(crate) fn allocate(&mut self) -> Result<Gsi, RouteError> {
        let words = self.taken.iter_mut().enumerate().skip(self.lowest);
        for (index, word) in words {
            self.lowest = index;
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                return Ok(Gsi::new(u32::try_from(index).unwrap_or(u32::MAX) * BITS + bit));
            }
        }
        Err(RouteError::GsisExhausted { first: Gsi::new(self.first), limit: self.limit })
    }

    /// Reserves a GSI with a number that the caller chose.
    pub(crate) fn take(&mut self, gsi: Gsi) {
        if let Some((word, bit)) = self.bit(gsi) {
            *word |= bit;
        }
    }

    /// Releases all of the given GSIs. On error, releases none of them.
    pub(crate) fn release_all(&mut self, gsis: &[Gsi]) -> Result<(), RouteError> {
        for (count, gsi) in gsis.iter().enumerate() {
            if !self.release(*gsi) {
                gsis.iter().take(count).for_each(|released| self.take(*released));
                return Err(RouteError::NotAllocated(*gsi));
            }
        }
        Ok(())
    }

    fn release(&mut self, gsi: Gsi) -> bool {
        if !(self.first..self.limit).contains(&gsi.get()) {
            return false;
        }
        self.lowest = self.lowest.min(gsi.index() / BITS as usize);
        self.bit(gsi).is_some_and(|(word, bit)| {
            let taken = *word & bit != 0;
            *word &= !bit;
            taken
        })
    }

    fn bit(&mut self, gsi: Gsi) -> Option<(&mut u64, u64)> {
        let word = self.taken.get_mut(gsi.index() / BITS as usize)?;
        Some((word, 1 << (gsi.get() % BITS)))
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn number(given: Result<Gsi, RouteError>) -> Option<u32> {
        given.ok().map(Gsi::get)
    }

    proptest! {
        #[test]
        fn the_lowest_free_gsi_is_allocated(
            first in 0u32..140,
            size in 0u32..140,
            steps in prop::collection::vec((0u8..3, 0u32..300), 0..200),
        ) {
            let limit = first + size;
            let mut gsis = Gsis::new(first..limit);
            let mut free: BTreeSet<u32> = (first..limit).collect();
            for (step, at) in steps {
                match step {
                    0 => prop_assert_eq!(number(gsis.allocate()), free.pop_first()),
                    1 => {
                        gsis.take(Gsi::new(at));
                        free.remove(&at);
                    }
                    _ => {
                        let expected = (first..limit).contains(&at) && free.insert(at);
                        prop_assert_eq!(gsis.release_all(&[Gsi::new(at)]).is_ok(), expected);
                    }
                }
            }
        }

        #[test]
        fn a_release_with_one_wrong_gsi_releases_none(count in 1u32..100, wrong in 0usize..100) {
            let mut gsis = Gsis::new(0..128);
            let mut given: Vec<_> = (0..count).filter_map(|_| gsis.allocate().ok()).collect();
            let twice = given[wrong % given.len()];
            given.push(twice);
            prop_assert_eq!(gsis.release_all(&given), Err(RouteError::NotAllocated(twice)));
            prop_assert_eq!(number(gsis.allocate()), Some(count));
        }
    }
}
