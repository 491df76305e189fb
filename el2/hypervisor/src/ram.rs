//! Guest memory, as accessed by the guest's GIC.

use core::ops::Range;
use vgic::{GuestMemory, MemoryFault};

/// The guest's RAM, identity-mapped to the machine's RAM. The hypervisor maps this RAM, but places
/// neither its image nor its heap there.
pub(crate) struct Ram(pub(crate) Range<u64>);

impl Ram {
    /// Returns the pointer to a range, if the whole range is RAM.
    fn at(&self, address: u64, bytes: usize) -> Result<*mut u8, MemoryFault> {
        let end = address.checked_add(bytes as u64);
        let inside = address >= self.0.start && end.is_some_and(|end| end <= self.0.end);
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        if inside { Ok(pointer) } else { Err(MemoryFault { address }) }
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let from = self.at(address, bytes.len())?;
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `at` checked the range; the guest may write to it at any time.
            *word = unsafe { from.cast::<[u8; 8]>().add(index).read_volatile() };
        }
        let done = words.len() * 8;
        for (offset, byte) in rest.iter_mut().enumerate() {
            // SAFETY: as above.
            *byte = unsafe { from.add(done + offset).read_volatile() };
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let to = self.at(address, bytes.len())?;
        let (words, rest) = bytes.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.cast::<[u8; 8]>().add(index).write_volatile(*word) };
        }
        let done = words.len() * 8;
        for (offset, byte) in rest.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.add(done + offset).write_volatile(*byte) };
        }
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let from: *const u64 = self.at(address, 8)?.cast();
        if !from.is_aligned() {
            let mut bytes = [0; 8];
            self.read(address, &mut bytes)?;
            return Ok(u64::from_le_bytes(bytes));
        }
        // SAFETY: `at` checked the range, and the pointer is aligned.
        Ok(u64::from_le(unsafe { from.read_volatile() }))
    }

    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        let to: *mut u64 = self.at(address, 8)?.cast();
        if !to.is_aligned() {
            return self.write(address, &word.to_le_bytes());
        }
        // SAFETY: `at` checked the range, and the pointer is aligned.
        unsafe { to.write_volatile(word.to_le()) };
        Ok(())
    }
}
