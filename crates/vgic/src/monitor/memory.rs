//! Access to guest memory, for LPI tables, ITS tables and commands.

/// Guest physical memory as the GIC sees it. The virtual machine monitor implements this trait.
///
/// Addresses come from the guest, so implementations must check each of them, and must return
/// [`MemoryFault`] if there is no memory at an address. The model may access memory on any thread
/// and with locks held, but never on the injection path. An implementation must not call into the
/// model.
///
/// With the feature `vm-memory`, [`VmMemory`](crate::VmMemory) implements this trait for the memory
/// types in rust-vmm's `vm-memory` crate.
pub trait GuestMemory: Send + Sync {
    /// Fills `bytes` with the memory at `address`.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; `bytes` may then be partly filled.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault>;

    /// Writes `bytes` to the memory at `address`. If the VMM tracks dirty pages, the implementation
    /// must mark the written pages.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; the rest may or may not have been
    /// written.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;

    /// Reads a little-endian 64-bit word. An implementation should use a single access if it can,
    /// because the guest may concurrently write the word.
    ///
    /// # Errors
    /// Same as for [`read`](Self::read).
    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads an ITS command: four little-endian 64-bit words (IHI 0069 §5.3). `address` is a
    /// multiple of 32. Intended for implementations for which [`read`](Self::read) is slow.
    ///
    /// # Errors
    /// Same as for [`read`](Self::read).
    fn read_command(&self, address: u64) -> Result<[u64; 4], MemoryFault> {
        let mut words = [[0; 8]; 4];
        self.read(address, words.as_flattened_mut())?;
        Ok(words.map(u64::from_le_bytes))
    }

    /// Writes a little-endian 64-bit word. An implementation should use a single access if it can.
    ///
    /// # Errors
    /// Same as for [`write`](Self::write).
    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        self.write(address, &word.to_le_bytes())
    }
}

/// Error for an address, chosen by the guest, where the guest has no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no memory at {address:#x}")]
pub struct MemoryFault {
    /// First address of the access.
    pub address: u64,
}
