//! Looks up regions by address.

pub use msi_types::Region;

use alloc::vec::Vec;

/// A set of regions, searched by address. If regions overlap, a lookup only considers the region
/// with the highest base.
pub(crate) struct RegionSet(Vec<Region>);

impl RegionSet {
    pub(crate) fn new(regions: impl Iterator<Item = Region>) -> Self {
        let mut sorted: Vec<Region> = regions.collect();
        sorted.sort();
        Self(sorted)
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        self.around(address).is_some()
    }

    /// Returns the region that contains `address`.
    pub(crate) fn around(&self, address: u64) -> Option<Region> {
        let after = self.0.partition_point(|region| region.base() <= address);
        let holder = after.checked_sub(1).and_then(|place| self.0.get(place));
        holder.copied().filter(|region| region.contains(address))
    }
}
