//! The free ranges in RAM. Allocations never overlap, and adjacent free ranges are merged.

use gic_firmware::Region;
use std::collections::BTreeMap;

/// Allocation granule, which keeps two owners from sharing a cache line.
const GRAIN: u64 = 256;

/// Sizes of the free ranges, by base address.
pub(super) struct Allocator {
    free: BTreeMap<u64, u64>,
}

/// Returns the number of bytes that the allocator allocates for a request of `bytes`.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.max(1).saturating_add(GRAIN - 1) & !(GRAIN - 1)
}

impl Allocator {
    pub(super) fn new(regions: impl Iterator<Item = Region>) -> Self {
        Self { free: regions.map(|region| (region.base(), region.size())).collect() }
    }

    /// Allocates `bytes` at the lowest free multiple of `align`. Returns `None` if no free range
    /// below `end` is large enough.
    pub(super) fn take(&mut self, bytes: u64, align: u64, end: u64) -> Option<u64> {
        let bytes = rounded(bytes);
        let align = align.max(GRAIN);
        let (base, size, start) = self.free.iter().find_map(|(&base, &size)| {
            let start = base.checked_next_multiple_of(align)?;
            let used = start.checked_sub(base)?.checked_add(bytes)?;
            (used <= size && start.checked_add(bytes)? <= end).then_some((base, size, start))
        })?;
        self.free.remove(&base);
        self.put(base, start - base);
        self.put(start + bytes, size - (start - base) - bytes);
        Some(start)
    }

    /// Frees a range and merges it with adjacent free ranges.
    pub(super) fn give(&mut self, base: u64, bytes: u64) {
        let mut joined = (base, bytes);
        if let Some((&before, &size)) = self.free.range(..base).next_back()
            && before + size == base
        {
            self.free.remove(&before);
            joined = (before, size + bytes);
        }
        if let Some(size) = self.free.remove(&(base + bytes)) {
            joined.1 += size;
        }
        self.put(joined.0, joined.1);
    }

    fn put(&mut self, base: u64, bytes: u64) {
        if bytes != 0 {
            self.free.insert(base, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allocator() -> Allocator {
        Allocator::new([Region::new(0x1_0000, 0x10_0000).unwrap()].into_iter())
    }

    proptest! {
        #[test]
        fn allocations_do_not_overlap_and_are_fully_reclaimed(
            requests in prop::collection::vec((1u64..0x4000, 0u32..17), 1..60),
        ) {
            let mut allocator = allocator();
            let mut owned: Vec<(u64, u64)> = Vec::new();
            for (bytes, log2) in requests {
                let Some(base) = allocator.take(bytes, 1 << log2, u64::MAX) else { continue };
                prop_assert_eq!(base % (1 << log2), 0);
                prop_assert!(
                    owned
                        .iter()
                        .all(|(other, size)| base + bytes <= *other || other + size <= base)
                );
                owned.push((base, rounded(bytes)));
            }
            for (base, bytes) in owned {
                allocator.give(base, bytes);
            }
            prop_assert_eq!(allocator.free, BTreeMap::from([(0x1_0000, 0x10_0000)]));
        }
    }

    #[test]
    fn memory_beyond_the_limit_is_not_allocated() {
        let mut allocator = allocator();
        assert_eq!(allocator.take(0x100, 0x100, 0x1_0200), Some(0x1_0000));
        assert_eq!(allocator.take(0x200, 0x100, 0x1_0200), None);
        assert_eq!(allocator.take(0x100, 0x100, 0x1_0200), Some(0x1_0100));
    }
}
