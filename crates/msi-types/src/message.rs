//! The messages of a message-signaled interrupt.

/// A message-signaled interrupt: a write of `data` to `address`.
///
/// ```
/// use msi_types::MsiMessage;
///
/// let message = MsiMessage { address: 0x1_0809_0040, data: 9 };
/// assert_eq!((message.address_high(), message.address_low()), (1, 0x0809_0040));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MsiMessage {
    /// Bus address of the doorbell: a physical address, or an I/O virtual address where an IOMMU
    /// translates.
    pub address: u64,
    /// The value written. PCI MSI carries 16 bits of it (32 with extended data), MSI-X 32.
    pub data: u32,
}

/// The two messages of a level-triggered interrupt: the device asserts the interrupt with one, and
/// deasserts it with the other. Only stores that hold both messages can use them, such as a
/// platform device's; a PCI vector has one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LevelMessages {
    /// The message that asserts the interrupt. The interrupt is pending until it is deasserted.
    pub assert: MsiMessage,
    /// The message that deasserts the interrupt.
    pub deassert: MsiMessage,
}

impl MsiMessage {
    /// Returns the upper 32 bits of the address, as capability registers store them.
    pub const fn address_high(self) -> u32 {
        (self.address >> 32) as u32
    }

    /// Returns the lower 32 bits of the address, as capability registers store them.
    pub const fn address_low(self) -> u32 {
        (self.address & 0xffff_ffff) as u32
    }
}
