//! Guest memory backed by rust-vmm's `vm-memory`.

use crate::monitor::{GuestMemory, MemoryFault};
use core::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

/// Guest memory as rust-vmm's VMMs hold it, i.e. an `Arc<GuestMemoryMmap>`, or a
/// `GuestMemoryAtomic` if memory can be hot-plugged. Writes by the model are marked in the regions'
/// dirty bitmaps.
///
/// `VmMemory` is a newtype because a blanket implementation for all `vm-memory` types would
/// conflict with other implementations.
#[derive(Clone, Debug)]
pub struct VmMemory<M>(pub M);

impl<M: GuestAddressSpace + Send + Sync> GuestMemory for VmMemory<M> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.0
            .memory()
            .read_slice(bytes, GuestAddress(address))
            .map_err(|_| MemoryFault { address })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.0
            .memory()
            .write_slice(bytes, GuestAddress(address))
            .map_err(|_| MemoryFault { address })
    }

    /// Reads the word in one access.
    ///
    /// # Errors
    /// There is no memory at the address, or the address is not a multiple of 8.
    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let word: Result<u64, _> = self.0.memory().load(GuestAddress(address), Ordering::Acquire);
        word.map(u64::from_le).map_err(|_| MemoryFault { address })
    }

    /// Writes the word in one access.
    ///
    /// # Errors
    /// There is no memory at the address, or the address is not a multiple of 8.
    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        let stored = self.0.memory().store(word.to_le(), GuestAddress(address), Ordering::Release);
        stored.map_err(|_| MemoryFault { address })
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use vm_memory::bitmap::{AtomicBitmap, Bitmap};
    use vm_memory::{
        GuestMemoryAtomic, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion,
    };

    const BASE: u64 = 0x4000_0000;
    const BYTES: usize = 0x1_0000;

    fn ram() -> Arc<GuestMemoryMmap<AtomicBitmap>> {
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), BYTES)]).unwrap())
    }

    #[test]
    fn writes_read_back_and_mark_pages_dirty() {
        let ram = ram();
        let memory = VmMemory(ram.clone());

        memory.write(BASE + 0x1ffc, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        memory.write_u64(BASE + 0x8000, 0x0102_0304_0506_0708).unwrap();

        let mut bytes = [0; 8];
        memory.read(BASE + 0x1ffc, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(memory.read_u64(BASE + 0x8000), Ok(0x0102_0304_0506_0708));
        memory.read(BASE + 0x8000, &mut bytes).unwrap();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1], "the guest is little-endian");
        let region = ram.iter().next().unwrap();
        let dirty: Vec<_> =
            (0..16).filter(|page| region.bitmap().dirty_at(page * 0x1000)).collect();
        assert_eq!(dirty, [1, 2, 8]);
    }

    #[test]
    fn an_access_outside_memory_faults() {
        let memory = VmMemory(ram());
        for address in [0, BASE - 1, BASE + BYTES as u64 - 4, u64::MAX - 3] {
            assert_eq!(memory.read(address, &mut [0; 8]), Err(MemoryFault { address }));
            assert_eq!(memory.write(address, &[0; 8]), Err(MemoryFault { address }));
            assert_eq!(memory.read_u64(address), Err(MemoryFault { address }));
            assert_eq!(memory.write_u64(address, 0), Err(MemoryFault { address }));
        }
    }

    #[test]
    fn replaced_guest_memory_takes_effect() {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
        let seen = VmMemory(memory.clone());
        assert!(seen.write(BASE, &[1]).is_err());

        let plugged = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), BYTES)]).unwrap();
        memory.lock().unwrap().replace(plugged);

        assert_eq!(seen.write(BASE, &[1]), Ok(()));
    }
}
