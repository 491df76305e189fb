//! A guest's memory, backed by rust-vmm's `vm-memory`.

use std::sync::Arc;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

/// Memory that tracks which pages have been written.
pub type Ram = Arc<GuestMemoryMmap<AtomicBitmap>>;

/// Returns `bytes` bytes of zeroed memory at `base`.
///
/// # Panics
/// Panics if the memory cannot be allocated.
pub fn ram(base: u64, bytes: usize) -> Ram {
    let mapped = GuestMemoryMmap::from_ranges(&[(GuestAddress(base), bytes)]);
    Arc::new(mapped.expect("memory for a test can be allocated"))
}

/// Returns `true` if pages have been written since the last call.
pub fn take_dirty(ram: &Ram) -> bool {
    ram.iter().any(|region| (**region).bitmap().get_and_reset().iter().any(|pages| *pages != 0))
}
