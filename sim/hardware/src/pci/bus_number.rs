//! Bus numbers, and device/function numbers on a bus.

use msi_types::RequesterId;
use std::sync::atomic::{AtomicU8, Ordering};

/// A device and function number: device in bits 7:3, function in bits 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevFn(pub u8);

impl DevFn {
    /// Combines device (0–31) and function (0–7). Higher bits of both numbers are ignored.
    pub const fn new(device: u8, function: u8) -> Self {
        Self((device & 0x1f) << 3 | function & 7)
    }

    /// Returns the device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Returns the function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// A bus number, as last programmed into the bridge above the bus. Functions on the bus use this
/// bus number in their requester IDs.
#[derive(Debug, Default)]
pub(super) struct BusNumber(AtomicU8);

impl BusNumber {
    pub(super) fn new(number: u8) -> Self {
        Self(AtomicU8::new(number))
    }

    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, number: u8) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Returns the requester ID for a function on this bus.
    pub(super) fn requester(&self, at: DevFn) -> RequesterId {
        RequesterId::pci(self.get(), at.device(), at.function())
    }
}
