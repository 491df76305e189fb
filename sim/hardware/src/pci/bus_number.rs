//! The numbers of a bus and of the places on it.

use msi_types::RequesterId;
use std::sync::atomic::{AtomicU8, Ordering};

/// Device and function number on a bus: device in bits 7:3, function in bits 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevFn(pub u8);

impl DevFn {
    /// From device (0–31) and function (0–7); higher bits are dropped.
    pub const fn new(device: u8, function: u8) -> Self {
        Self((device & 0x1f) << 3 | function & 7)
    }

    /// The device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// The function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// The number of a bus, as the bridge above it was last told. Functions on the bus capture theirs
/// from it.
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

    /// The requester ID of a function on this bus.
    pub(super) fn requester(&self, at: DevFn) -> RequesterId {
        RequesterId::pci(self.get(), at.device(), at.function())
    }
}
