//! A guest's RAM.

use core::arch::asm;
use core::ops::Range;
use vgic::{GuestMemory, MemoryFault};

/// A guest's RAM. Only this type translates guest physical addresses to the machine's. The
/// hypervisor maps this RAM, but places neither its image nor its heap there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Guest physical addresses.
    pub guest: Range<u64>,
    /// Physical address of the first byte.
    pub physical: u64,
}

impl Ram {
    /// Returns RAM at a guest physical address, which occupies a range of physical addresses. Both
    /// must begin and end at boundaries of pages.
    pub fn new(guest: u64, physical: Range<u64>) -> Self {
        Self { guest: guest..guest + (physical.end - physical.start), physical: physical.start }
    }

    /// Returns the guest physical addresses of a range of physical addresses in this RAM.
    pub fn guest_range(&self, physical: &Range<u64>) -> Range<u64> {
        let guest = |address| self.guest.start + (address - self.physical);
        guest(physical.start)..guest(physical.end)
    }

    /// Returns the physical address of a range of guest physical addresses in this RAM.
    #[inline]
    pub fn translate(&self, address: u64, bytes: usize) -> Option<u64> {
        let offset = address.wrapping_sub(self.guest.start);
        let end = offset.checked_add(bytes as u64)?;
        (end <= self.guest.end - self.guest.start).then_some(self.physical.wrapping_add(offset))
    }

    /// Writes to RAM and cleans the caches, because a guest starts with caches off.
    pub fn place(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.write(address, bytes)?;
        clean(self.at(address, bytes.len())?.addr(), bytes.len());
        Ok(())
    }

    /// Returns the pointer to a range, if the whole range is RAM.
    fn at(&self, address: u64, bytes: usize) -> Result<*mut u8, MemoryFault> {
        let physical = self.translate(address, bytes).ok_or(MemoryFault { address })?;
        Ok(core::ptr::with_exposed_provenance_mut(physical as usize))
    }
}

/// Cleans the cache lines of a range to the point of coherency.
fn clean(start: usize, bytes: usize) {
    /// The length of the shortest cache line (DDI 0487, `CCSIDR_EL1.LineSize`).
    const LINE: usize = 16;
    for line in (start & !(LINE - 1)..start + bytes).step_by(LINE) {
        // SAFETY: cleaning does not change the contents of memory as the program sees it.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
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

    fn read_command(&self, address: u64) -> Result<[u64; 4], MemoryFault> {
        let from: *const [u64; 4] = self.at(address, 32)?.cast();
        if !from.is_aligned() {
            return Err(MemoryFault { address });
        }
        // SAFETY: `at` checked the range, and the pointer is aligned.
        Ok(unsafe { from.read_volatile() }.map(u64::from_le))
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
