//! Minimal drivers that only make devices send interrupts.

pub(crate) mod edu;
pub(crate) mod nvme;
mod virtio;

use crate::driver::Driver;
use crate::report::Verdict;
use alloc::sync::Arc;
use image_rt::nvme::Nvme;
use image_rt::pci::{self, Function};
use image_rt::virtio::Rng;
use nvme::IO_QUEUES;

/// A kind of device that has a driver in this module.
pub(crate) struct DeviceKind {
    pub(crate) name: &'static str,
    /// Vendor and device ID.
    ids: (u16, u16),
    make: fn(&Function) -> Arc<dyn Driver>,
}

const fn kind(
    name: &'static str,
    ids: (u16, u16),
    make: fn(&Function) -> Arc<dyn Driver>,
) -> DeviceKind {
    DeviceKind { name, ids, make }
}

/// All kinds of devices.
const KINDS: &[DeviceKind] = &[
    kind("edu", (0x1234, 0x11e8), |function| Arc::new(edu::Edu::new(function))),
    kind("nvme", (0x1b36, 0x0010), |it| Arc::new(Nvme::new(pci::bar(it, 0), IO_QUEUES))),
    kind("virtio-net", (0x1af4, 0x1041), |_| Arc::new(Silent(3))),
    kind("virtio-rng", (0x1af4, 0x1044), |function| Arc::new(Rng::new(function))),
    // 16 messages of multi-message MSI.
    kind("nec-usb-xhci", (0x1033, 0x0194), |_| Arc::new(Silent(16))),
];

impl DeviceKind {
    /// Returns the kind of a function.
    pub(crate) fn of(function: &Function) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.ids == pci::ids(function))
    }

    /// Returns `true` if the function is of this kind.
    pub(crate) fn is(function: &Function, name: &str) -> bool {
        Self::of(function).is_some_and(|kind| kind.name == name)
    }

    /// Creates the function's driver.
    pub(crate) fn drive(&self, function: &Function) -> Arc<dyn Driver> {
        (self.make)(function)
    }
}

/// A device with this number of messages, which no driver makes it send.
struct Silent(u16);

impl Driver for Silent {
    fn vectors(&self) -> u16 {
        self.0
    }

    fn fires(&self) -> bool {
        false
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}
