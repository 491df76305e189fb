//! The guest's memory.

use crate::Failure;
use crate::layout::{GIC_MEMORY, RAM, RAM_BYTES};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Size in bytes of a row in [`Ram::rows`].
const ROW: usize = 32;

/// The guest's memory. All clones share the same memory.
#[derive(Clone, Debug)]
pub struct Ram(Arc<GuestMemoryMmap<()>>);

impl Ram {
    /// Creates memory filled with zeros.
    pub fn new() -> Result<Self, Failure> {
        let ranges = [(GuestAddress(RAM), RAM_BYTES)];
        Ok(Self(Arc::new(GuestMemoryMmap::from_ranges(&ranges)?)))
    }

    /// Stores bytes.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.0.write_slice(bytes, GuestAddress(address))?)
    }

    /// Reads bytes into `bytes`.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        Ok(self.0.read_slice(bytes, GuestAddress(address))?)
    }

    /// Reads a little-endian 64-bit word.
    pub fn word(&self, address: u64) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Returns the rows of the GIC's memory that contain a nonzero byte, by ascending address.
    pub fn rows(&self) -> Result<Vec<(u64, Vec<u8>)>, Failure> {
        let mut all = vec![0; RAM_BYTES - usize::try_from(GIC_MEMORY - RAM)?];
        self.read(GIC_MEMORY, &mut all)?;
        let rows = (GIC_MEMORY..).step_by(ROW).zip(all.chunks(ROW));
        let used = rows.filter(|(_, row)| row.iter().any(|byte| *byte != 0));
        Ok(used.map(|(address, row)| (address, row.to_vec())).collect())
    }

    /// Returns the memory in the form that the kernel and the model's adapter require.
    pub fn mapped(&self) -> &GuestMemoryMmap<()> {
        &self.0
    }
}
