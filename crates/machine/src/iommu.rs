//! An IOMMU between devices and the bus: pages that each device reaches, and what it tried to reach beside them.

use crate::lock::lock;
use msi_types::{Delivery, Granule, MsiMessage, RequesterId, SignalMsi};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Pages have this size.
pub const GRANULE: Granule = Granule::Size4K;
/// Faults that are kept.
const KEPT: usize = 64;

/// A device wrote where nothing is mapped for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// Who.
    pub device: RequesterId,
    /// Where, as the device sees it.
    pub address: u64,
}

/// Translates what devices write, page by page. A device without any page reaches nothing.
pub struct Iommu {
    upstream: Arc<dyn SignalMsi<RequesterId>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By device and the page that it writes to.
    pages: BTreeMap<(RequesterId, u64), u64>,
    faults: Vec<Fault>,
}

impl Iommu {
    /// In front of `upstream`.
    pub fn new(upstream: Arc<dyn SignalMsi<RequesterId>>) -> Self {
        Self { upstream, state: Mutex::default() }
    }

    /// Lets `device` reach the page of the bus's address `physical` by the page of `address`.
    pub fn map(&self, device: RequesterId, address: u64, physical: u64) {
        lock(&self.state).pages.insert((device, GRANULE.page(address)), GRANULE.page(physical));
    }

    /// The first faults, in their order.
    pub fn faults(&self) -> Vec<Fault> {
        lock(&self.state).faults.clone()
    }

    fn translate(&self, device: RequesterId, address: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        let page = state.pages.get(&(device, GRANULE.page(address))).copied();
        if page.is_none() && state.faults.len() < KEPT {
            state.faults.push(Fault { device, address });
        }
        Some(page? | GRANULE.offset(address))
    }
}

impl SignalMsi<RequesterId> for Iommu {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        match self.translate(from, message.address) {
            Some(address) => self.upstream.signal_msi(from, MsiMessage { address, ..message }),
            None => Delivery::Blocked,
        }
    }
}

impl fmt::Debug for Iommu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iommu").field("faults", &self.faults()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what goes to one address.
    struct Only(u64);
    impl SignalMsi<RequesterId> for Only {
        fn signal_msi(&self, _from: RequesterId, message: MsiMessage) -> Delivery {
            if message.address == self.0 { Delivery::Pending } else { Delivery::NoDoorbell }
        }
    }

    const DEVICE: RequesterId = RequesterId::new(8);

    #[test]
    fn a_mapped_page_leads_to_its_place_with_the_offset() {
        let iommu = Iommu::new(Arc::new(Only(0x7040)));
        iommu.map(DEVICE, 0x1000, 0x7000);
        let delivery = iommu.signal_msi(DEVICE, MsiMessage { address: 0x1040, data: 1 });
        assert_eq!((delivery, iommu.faults()), (Delivery::Pending, Vec::new()));
    }

    #[test]
    fn another_device_s_page_is_a_fault_and_says_whose() {
        let iommu = Iommu::new(Arc::new(Only(0x7040)));
        iommu.map(DEVICE, 0x1000, 0x7000);
        let device = RequesterId::new(9);
        assert_eq!(iommu.signal_msi(device, MsiMessage { address: 0x1040, data: 1 }), Delivery::Blocked);
        assert_eq!(iommu.faults(), [Fault { device, address: 0x1040 }]);
    }
}
