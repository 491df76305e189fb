//! The claimed addresses on a bus and their owners. Claims never overlap.

use gic_firmware::Region;
use std::fmt;

/// Two claims that overlap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{second} at {second_region} overlaps {first} at {first_region}")]
pub struct Overlap {
    /// Name of the earlier claim.
    pub first: String,
    /// Region of the earlier claim.
    pub first_region: Region,
    /// Name of the later claim.
    pub second: String,
    /// Region of the later claim.
    pub second_region: Region,
}

/// Claimed regions, which never overlap.
#[derive(Clone, Default)]
pub struct AddressMap {
    /// Claims, sorted by base address. Claims are numbered in the order in which they were made.
    claims: Vec<(Region, usize, String)>,
}

impl AddressMap {
    /// Claims `region` for `name`. An empty region claims no addresses, but the claim still has a
    /// number.
    ///
    /// # Errors
    /// Fails if the region overlaps that of an earlier claim.
    pub fn claim(&mut self, name: &str, region: Region) -> Result<(), Overlap> {
        if let Some((first_region, _, first)) =
            self.claims.iter().find(|(taken, ..)| overlap(*taken, region))
        {
            return Err(Overlap {
                first: first.clone(),
                first_region: *first_region,
                second: name.to_owned(),
                second_region: region,
            });
        }
        let at = self.claims.partition_point(|(taken, ..)| taken.base() < region.base());
        self.claims.insert(at, (region, self.claims.len(), name.to_owned()));
        Ok(())
    }

    /// Returns the lowest unclaimed range within `from..below` that has `size` bytes and is aligned
    /// to `align` (a power of two).
    pub fn find_free(&self, size: u64, align: u64, from: u64, below: u64) -> Option<Region> {
        let mut base = from.checked_next_multiple_of(align)?;
        for (taken, ..) in &self.claims {
            let candidate = Region::new(base, size)?;
            if !overlap(*taken, candidate) {
                if taken.base() > base {
                    break;
                }
                continue;
            }
            base = taken.last()?.checked_add(1)?.checked_next_multiple_of(align)?;
        }
        Region::new(base, size).filter(|found| found.last().is_some_and(|last| last < below))
    }

    /// Returns the number and the region of the claim that contains `address`.
    pub fn find(&self, address: u64) -> Option<(usize, Region)> {
        let after = self.claims.partition_point(|(taken, ..)| taken.base() <= address);
        let (region, number, _) = self.claims.get(after.checked_sub(1)?)?;
        region.contains(address).then_some((*number, *region))
    }
}

fn overlap(one: Region, other: Region) -> bool {
    match (one.last(), other.last()) {
        (Some(last_of_one), Some(last_of_other)) => {
            one.base() <= last_of_other && other.base() <= last_of_one
        }
        _ => false,
    }
}

impl fmt::Debug for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.claims.iter().map(|(region, _, name)| (region, name))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn find_free_returns_the_first_free_aligned_range(
            taken in prop::collection::vec((0u64..64, 1u64..9), 0..12),
            size in 1u64..8,
            log2 in 0u32..4,
        ) {
            let mut map = AddressMap::default();
            for (base, size) in taken {
                let _ = map.claim("taken", Region::new(base, size).unwrap());
            }
            let wanted = |base: &u64| map.clone().claim("wanted", Region::new(*base, size).unwrap());
            let expected = (0..100u64).step_by(1 << log2).find(|base| wanted(base).is_ok());
            let found = map.find_free(size, 1 << log2, 0, 200).map(Region::base);
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_overlap_error_names_both_devices() {
        let mut map = AddressMap::default();
        map.claim("uart", Region::new(0x1000, 0x1000).unwrap()).unwrap();
        let overlap = map.claim("timer", Region::new(0x1fff, 1).unwrap()).unwrap_err();
        assert_eq!(overlap.to_string(), "timer at 0x1fff-0x1fff overlaps uart at 0x1000-0x1fff");
    }
}
