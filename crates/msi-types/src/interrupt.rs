//! Interrupts: their messages, trigger modes and pending states.

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
    /// Bus address of the doorbell: a physical address, or an I/O virtual address if an IOMMU
    /// translates it.
    pub address: u64,
    /// The written value. PCI MSI only sends its lower 16 bits (32 with extended data), and MSI-X
    /// sends all 32.
    pub data: u32,
}

/// The pair of messages behind a level-triggered interrupt: a device asserts it with one and
/// deasserts it with the other. Such an interrupt requires a store that holds both messages, e.g.
/// in a platform device. A PCI vector has only one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LevelMessages {
    /// The message that asserts the interrupt, which then stays pending until it is deasserted.
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

/// Trigger mode of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Triggered by a rising edge or a message: pending until acknowledged.
    Edge,
    /// Triggered by a high level: pending while the source asserts it.
    Level,
}

/// Operation on the pending state of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pending {
    /// Make the interrupt pending, as the device's own message would.
    Set,
    /// Clear the pending state.
    Clear,
}
