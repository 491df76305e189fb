//! Slots of a bus.

use super::ProtocolError;
use core::fmt;
use msi_types::RequesterId;

/// A function's place on its bus. In messages the device number takes bits 4:0 and the function
/// number bits 7:5, the other way round than in a requester ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(u8);

impl Slot {
    /// The slot of a device (0 to 31) and function (0 to 7). Bits above are ignored.
    pub const fn new(device: u8, function: u8) -> Self {
        Self(device & 0x1f | function << 5)
    }

    /// The slot as messages carry it.
    ///
    /// # Errors
    /// [`ProtocolError::BadSlot`] if one of bits 31:8 is set.
    pub const fn from_wire(wire: u32) -> Result<Self, ProtocolError> {
        match wire.to_le_bytes() {
            [slot, 0, 0, 0] => Ok(Self(slot)),
            _ => Err(ProtocolError::BadSlot(wire)),
        }
    }

    /// The number in messages.
    pub const fn to_wire(self) -> u32 {
        self.0 as u32
    }

    /// The slot of a requester. A virtual bus has its own numbers, so the bus number is ignored.
    pub const fn of(requester: RequesterId) -> Self {
        Self::new(requester.pci_device(), requester.pci_function())
    }

    /// The requester in this slot of bus `bus`.
    pub const fn requester(self, bus: u8) -> RequesterId {
        RequesterId::pci(bus, self.device(), self.function())
    }

    /// Device number.
    pub const fn device(self) -> u8 {
        self.0 & 0x1f
    }

    /// Function number.
    pub const fn function(self) -> u8 {
        self.0 >> 5
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
