//! The mapping from requester IDs of one bus to DeviceIDs, as `msi-map` (devicetree) or an IORT
//! mapping (ACPI) states it.

use alloc::vec::Vec;
use msi_types::{DeviceId, RequesterId};

/// Consecutive requesters with consecutive DeviceIDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdRange {
    /// The lowest requester, after masking.
    pub first_requester: RequesterId,
    /// Number of requesters.
    pub length: u32,
    /// The DeviceID of the first.
    pub first_device: DeviceId,
}

impl IdRange {
    fn device(&self, requester: u32) -> Option<DeviceId> {
        let offset = requester.checked_sub(self.first_requester.get())?;
        if offset >= self.length {
            return None;
        }
        self.first_device.get().checked_add(offset).map(DeviceId::new)
    }

    fn reaches(&self, device: DeviceId) -> bool {
        device.get().checked_sub(self.first_device.get()).is_some_and(|offset| offset < self.length)
    }
}

/// The mapping of one bus (a PCI host bridge, or one platform device) to one ITS.
#[derive(Debug)]
pub struct IdMap {
    mask: u32,
    ranges: Ranges,
}

/// The usual single one takes no memory.
#[derive(Debug)]
enum Ranges {
    One(IdRange),
    Many(Vec<IdRange>),
}

impl IdMap {
    /// Creates a map of these ranges; where they overlap, the first one counts.
    pub fn new(ranges: Vec<IdRange>) -> Self {
        Self { mask: u32::MAX, ranges: Ranges::Many(ranges) }
    }

    /// Every requester's number is its DeviceID: a bus with `msi-parent` and no `msi-map`.
    pub fn identity() -> Self {
        let all = IdRange {
            first_requester: RequesterId::new(0),
            length: u32::MAX,
            first_device: DeviceId::new(0),
        };
        Self { mask: u32::MAX, ranges: Ranges::One(all) }
    }

    /// One device.
    pub fn single(requester: RequesterId, device: DeviceId) -> Self {
        let range = IdRange { first_requester: requester, length: 1, first_device: device };
        Self { mask: u32::MAX, ranges: Ranges::One(range) }
    }

    /// Maps every requester to this DeviceID, as for functions behind a bridge to conventional PCI,
    /// whose messages carry the bridge's alias.
    pub fn shared(device: DeviceId) -> Self {
        Self::single(RequesterId::new(0), device).with_mask(0)
    }

    /// Requesters are looked up by these bits of their number alone (`msi-map-mask`): those that
    /// differ in the others share a DeviceID.
    pub fn with_mask(self, mask: u32) -> Self {
        Self { mask, ..self }
    }

    /// The DeviceID of a requester; `None` if the bus does not lead it to this ITS.
    pub fn device(&self, requester: RequesterId) -> Option<DeviceId> {
        let masked = requester.get() & self.mask;
        self.ranges().iter().find_map(|range| range.device(masked))
    }

    /// May several requesters have this DeviceID?
    pub fn is_shared(&self, device: DeviceId) -> bool {
        // PCI requester IDs have 16 bits.
        let masked = self.mask & 0xffff != 0xffff;
        masked || self.ranges().iter().filter(|range| range.reaches(device)).count() > 1
    }

    fn ranges(&self) -> &[IdRange] {
        match &self.ranges {
            Ranges::One(range) => core::slice::from_ref(range),
            Ranges::Many(ranges) => ranges,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, length: u32, device: u32) -> IdRange {
        IdRange {
            first_requester: RequesterId::new(first),
            length,
            first_device: DeviceId::new(device),
        }
    }

    #[test]
    fn requester_counts_from_its_range() {
        let map = IdMap::new(alloc::vec![range(0x100, 0x100, 0x2_0000), range(0x400, 1, 7)]);
        assert_eq!(map.device(RequesterId::new(0x1ff)), Some(DeviceId::new(0x2_00ff)));
        assert_eq!(map.device(RequesterId::new(0x400)), Some(DeviceId::new(7)));
        assert_eq!(map.device(RequesterId::new(0x200)), None);
        assert_eq!(map.device(RequesterId::new(0xff)), None);
    }

    #[test]
    fn masked_requesters_share_a_device() {
        let map = IdMap::identity().with_mask(0xfff8);
        assert_eq!(map.device(RequesterId::new(0x107)), map.device(RequesterId::new(0x100)));
        assert!(map.is_shared(DeviceId::new(0x100)));
    }

    #[test]
    fn an_unmasked_identity_shares_nothing() {
        assert!(!IdMap::identity().is_shared(DeviceId::new(0x100)));
    }

    #[test]
    fn every_requester_has_the_shared_device() {
        let map = IdMap::shared(DeviceId::new(0x2_0100));
        for requester in [RequesterId::pci(1, 0, 0), RequesterId::pci(1, 31, 7)] {
            assert_eq!(map.device(requester), Some(DeviceId::new(0x2_0100)));
        }
        assert!(map.is_shared(DeviceId::new(0x2_0100)));
    }

    #[test]
    fn overlapping_outputs_are_shared() {
        let map = IdMap::new(alloc::vec![range(0, 8, 0x10), range(0x100, 8, 0x17)]);
        assert!(map.is_shared(DeviceId::new(0x17)));
        assert!(!map.is_shared(DeviceId::new(0x16)));
    }

    #[test]
    fn range_beyond_the_maximum_has_no_device() {
        let map = IdMap::new(alloc::vec![range(0, u32::MAX, 0xffff_fff0)]);
        assert_eq!(map.device(RequesterId::new(0xf)), Some(DeviceId::new(u32::MAX)));
        assert_eq!(map.device(RequesterId::new(0x10)), None);
    }
}
