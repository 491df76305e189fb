//! Access to the guest's memory, for LPI tables, ITS tables and commands.

/// The guest's physical memory, as its GIC sees it. Implemented by the virtual machine monitor.
///
/// Addresses come from the guest: an implementation checks every one, and answers with
/// [`MemoryFault`] where there is no memory. It is called from any thread, never on the injection
/// path, and with locks of the model held. So an implementation does not call into the model.
///
/// With the feature `vm-memory`, [`VmMemory`](crate::VmMemory) implements it by rust-vmm's crate of
/// that name.
pub trait GuestMemory: Send + Sync {
    /// Fills `bytes` from `address` on.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; `bytes` may then be partly filled.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault>;

    /// Stores `bytes` from `address` on and marks what it touched as dirty, where the monitor
    /// tracks that.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; nothing is promised about the rest
    /// then.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;

    /// A little-endian 64-bit word. Implementations that can, read it in one access: the guest may
    /// be writing it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores a little-endian 64-bit word, in one access where the implementation can.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        self.write(address, &word.to_le_bytes())
    }
}

/// The guest pointed its GIC at an address where it has no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no memory at {address:#x}")]
pub struct MemoryFault {
    /// The first address of the access.
    pub address: u64,
}
