//! Minimal drivers that only make devices send interrupts.

pub(crate) mod edu;
mod nvme;
mod port;
mod virtio;

use crate::driver::Driver;
use crate::report::Verdict;
use alloc::sync::Arc;
use image_rt::pci::Function;

/// A kind of device that has a driver in this module.
pub(crate) struct DeviceKind {
    pub(crate) name: &'static str,
    vendor: u16,
    device: u16,
    make: fn(&Function) -> Arc<dyn Driver>,
}

/// All kinds of devices.
const KINDS: &[DeviceKind] = &[
    DeviceKind {
        name: "edu",
        vendor: 0x1234,
        device: 0x11e8,
        make: |f| Arc::new(edu::Edu::new(f)),
    },
    DeviceKind {
        name: "nvme",
        vendor: 0x1b36,
        device: 0x0010,
        make: |f| Arc::new(nvme::Nvme::new(f)),
    },
    DeviceKind {
        name: "virtio-net",
        vendor: 0x1af4,
        device: 0x1041,
        make: |f| Arc::new(virtio::Net::new(f)),
    },
    DeviceKind {
        name: "virtio-blk",
        vendor: 0x1af4,
        device: 0x1042,
        make: |f| Arc::new(virtio::Blk::new(f)),
    },
    DeviceKind {
        name: "virtio-rng",
        vendor: 0x1af4,
        device: 0x1044,
        make: |f| Arc::new(virtio::Rng::new(f)),
    },
    DeviceKind {
        name: "pcie-root-port",
        vendor: 0x1b36,
        device: 0x000c,
        make: |f| Arc::new(port::Port::new(f)),
    },
    DeviceKind {
        name: "ioh3420",
        vendor: 0x8086,
        device: 0x3420,
        make: |f| Arc::new(port::Port::with_second_message(f)),
    },
    DeviceKind { name: "nec-usb-xhci", vendor: 0x1033, device: 0x0194, make: |_| Arc::new(Silent) },
];

impl DeviceKind {
    /// Returns the kind of a function.
    pub(crate) fn of(function: &Function) -> Option<&'static Self> {
        KINDS.iter().find(|kind| function.is(kind.vendor, kind.device))
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

/// A device with 16 messages of multi-message MSI, which no driver makes it send.
struct Silent;

impl Driver for Silent {
    fn vectors(&self) -> u16 {
        16
    }

    fn fires(&self) -> bool {
        false
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}
