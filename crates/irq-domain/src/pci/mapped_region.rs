//! Mapped PCI device memory: an ECAM window, or a function's region.
//!
//! Audited: all unsafe blocks below rely on the contract of [`MappedRegion::new`], i.e. that the
//! region is mapped as device memory for as long as the program runs. [`MappedRegion::register`]
//! checks that each access is aligned and inside the region.

#![expect(unsafe_code, reason = "device memory is accessed through raw pointers")]

use super::{EcamWindow, TableMemory};
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadPureWrite, WriteOnly};

/// A region mapped as device memory. On AArch64, each access is one plain load or store that a
/// hypervisor can decode. Misaligned and out-of-range accesses are refused, because a function may
/// report a table that doesn't fit its region: reads return all ones, and writes are dropped.
#[derive(Clone, Copy, Debug)]
pub struct MappedRegion {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: The region stays mapped, and any CPU can access device memory (contract of `new`).
unsafe impl Send for MappedRegion {}
// SAFETY: As for `Send`. Each access is a single load or store, so the device orders concurrent
// accesses.
unsafe impl Sync for MappedRegion {}

impl MappedRegion {
    /// Creates a region from the `length` bytes mapped at `base`.
    ///
    /// # Safety
    /// - `base..base + length` must be mapped as device memory for the rest of the program's life,
    ///   and must be valid for volatile loads and stores of 8, 16 and 32 bits from any CPU.
    /// - No Rust reference may point into it.
    /// - `base` must be aligned to 4 bytes.
    pub const unsafe fn new(base: NonNull<u8>, length: usize) -> Self {
        Self { base, length }
    }

    /// Returns a pointer to the register at `offset`, or `None` if it is misaligned or out of
    /// range.
    fn register<T>(&self, offset: u64) -> Option<NonNull<T>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(size_of::<T>())?;
        if end > self.length || !start.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` is inside the region (checked above), and the region does not wrap the
        // address space (contract of `new`).
        Some(unsafe { self.base.add(start).cast() })
    }
}

/// Implements accesses of one width.
macro_rules! accesses {
    ($read:ident, $write:ident, $value:ty) => {
        fn $read(&self, offset: u64) -> $value {
            let Some(register) = self.register::<ReadPureWrite<$value>>(offset) else {
                return <$value>::MAX;
            };
            // SAFETY: The pointer is aligned and within a region mapped as device memory
            // (`register`, `new`). We use it only for this access. If other CPUs access the same
            // register, the device orders the single accesses.
            <$value>::from_le(unsafe { UniqueMmioPointer::new(register) }.read())
        }

        fn $write(&self, offset: u64, value: $value) {
            if let Some(register) = self.register::<WriteOnly<$value>>(offset) {
                // SAFETY: The same argument as for reads applies.
                unsafe { UniqueMmioPointer::new(register) }.write(value.to_le());
            }
        }
    };
}

impl EcamWindow for MappedRegion {
    fn length(&self) -> u64 {
        self.length as u64
    }

    accesses!(read8, write8, u8);
    accesses!(read16, write16, u16);
    accesses!(read32, write32, u32);
}

impl TableMemory for MappedRegion {
    fn length(&self) -> u64 {
        self.length as u64
    }

    accesses!(read32, write32, u32);
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    #[repr(align(8))]
    struct Memory(UnsafeCell<[u8; 16]>);

    fn over(memory: &mut Memory) -> MappedRegion {
        // SAFETY: Plain memory permits volatile accesses, as device memory does. The memory is
        // borrowed for the whole test, which does not access it in any other way.
        unsafe { MappedRegion::new(NonNull::new(memory.0.get().cast()).unwrap(), 14) }
    }

    #[test]
    fn accesses_are_little_endian() {
        let mut memory = Memory(UnsafeCell::new([0; 16]));
        let region = over(&mut memory);
        EcamWindow::write32(&region, 4, 0x1122_3344);
        region.write16(8, 0x5566);
        region.write8(11, 0x77);
        assert_eq!(
            (region.read8(4), region.read16(6), EcamWindow::read32(&region, 8)),
            (0x44, 0x1122, 0x7700_5566)
        );
        assert_eq!(memory.0.get_mut()[4..12], [0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0, 0x77]);
    }

    #[test]
    fn a_misaligned_or_outside_access_reads_ones_and_writes_nothing() {
        let mut memory = Memory(UnsafeCell::new([0; 16]));
        let region = over(&mut memory);
        for offset in [12, 2, u64::MAX - 1, 1 << 40] {
            TableMemory::write32(&region, offset, 0);
            assert_eq!(TableMemory::read32(&region, offset), u32::MAX, "{offset:#x}");
        }
        region.write16(13, 1);
        region.write8(14, 1);
        assert_eq!((region.read16(13), region.read8(14)), (u16::MAX, u8::MAX));
        assert_eq!(*memory.0.get_mut(), [0; 16]);
    }
}
