//! The guest's memory.

use crate::Failure;
use crate::layout::{GIC_MEMORY, RAM, RAM_BYTES};
use std::sync::Arc;
use vgic::{GuestMemory as _, VmMemory};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Size in bytes of a row in [`rows`].
const ROW: usize = 32;

/// The guest's memory. All clones share the same memory.
pub type Ram = VmMemory<Arc<GuestMemoryMmap<()>>>;

/// Creates memory filled with zeros.
pub(crate) fn ram() -> Result<Ram, Failure> {
    let ranges = [(GuestAddress(RAM), RAM_BYTES)];
    Ok(VmMemory(Arc::new(GuestMemoryMmap::from_ranges(&ranges)?)))
}

/// Returns the rows of the GIC's memory that contain a nonzero byte, by ascending address.
pub fn rows(ram: &Ram) -> Result<Vec<(u64, Vec<u8>)>, Failure> {
    let mut all = vec![0; RAM_BYTES - usize::try_from(GIC_MEMORY - RAM)?];
    ram.read(GIC_MEMORY, &mut all)?;
    let rows = (GIC_MEMORY..).step_by(ROW).zip(all.chunks(ROW));
    let used = rows.filter(|(_, row)| row.iter().any(|byte| *byte != 0));
    Ok(used.map(|(address, row)| (address, row.to_vec())).collect())
}
