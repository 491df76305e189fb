//! The message itself.

/// A message-signalled interrupt: write `data` to `address`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MsiMessage {
    /// Bus address of the doorbell: a physical address, or an I/O virtual address where an IOMMU
    /// translates.
    pub address: u64,
    /// The value written. PCI MSI and MSI-X on a plain bus carry 16 and 32 bits of it.
    pub data: u32,
}

/// The two messages of a level-triggered interrupt: the device asserts by one, and deasserts by the
/// other. Only stores that hold both (a platform device's) can use them; PCI has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LevelMessages {
    /// Asserts the interrupt: it is pending from now on.
    pub assert: MsiMessage,
    /// Deasserts it.
    pub deassert: MsiMessage,
}

impl MsiMessage {
    /// The upper 32 bits of the address, as capability registers store it.
    pub const fn address_high(self) -> u32 {
        (self.address >> 32) as u32
    }

    /// The lower 32 bits of the address, as capability registers store it.
    pub const fn address_low(self) -> u32 {
        (self.address & 0xffff_ffff) as u32
    }
}
