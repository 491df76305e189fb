//! Slots on a virtual bus.

use super::{Codec, ProtocolError};
use core::fmt;
use msi_types::RequesterId;

/// A function's device and function number on its bus. In messages, the device number is in bits
/// 4:0 and the function number in bits 7:5. A requester ID contains the two fields in the opposite
/// order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(u8);

impl Slot {
    /// Creates the slot of a device (0 to 31) and function (0 to 7). Higher bits are ignored.
    pub const fn new(device: u8, function: u8) -> Self {
        Self(device & 0x1f | function << 5)
    }

    /// Returns a requester's slot. Ignores the bus number, because the kernel numbers virtual buses
    /// itself.
    pub const fn of(requester: RequesterId) -> Self {
        Self::new(requester.pci_device(), requester.pci_function())
    }

    /// Decodes a slot from a message.
    ///
    /// # Errors
    /// Returns [`ProtocolError::BadSlot`] if any of bits 31:8 is set.
    pub const fn from_wire(wire: u32) -> Result<Self, ProtocolError> {
        match wire.to_le_bytes() {
            [slot, 0, 0, 0] => Ok(Self(slot)),
            _ => Err(ProtocolError::BadSlot(wire)),
        }
    }

    /// Returns the slot's number in messages.
    pub const fn to_wire(self) -> u32 {
        self.0 as u32
    }

    /// Returns this slot's requester ID on the bus with number `bus`.
    pub const fn requester(self, bus: u8) -> RequesterId {
        RequesterId::pci(bus, self.device(), self.function())
    }

    /// Returns the device number.
    pub const fn device(self) -> u8 {
        self.0 & 0x1f
    }

    /// Returns the function number.
    pub const fn function(self) -> u8 {
        self.0 >> 5
    }

    pub(super) fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        Self::from_wire(by.u32(self.to_wire())?)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({self})")
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.device(), self.function())
    }
}
