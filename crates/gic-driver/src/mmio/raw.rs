//! Memory-mapped registers, built on [`safe_mmio`].
//!
//! Audited: all `unsafe` blocks below rely on a single promise by the caller of [`RawMmio::new`]:
//! the whole frame is mapped as device memory for as long as the program runs. Each access must
//! also be aligned and lie within the frame, which [`RawMmio::register`] checks.
#![expect(unsafe_code, reason = "device memory is accessed through raw pointers")]

use super::Mmio;
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadPureWrite, WriteOnly};

/// A frame mapped as device memory. On AArch64, each access is a single plain load or store that a
/// trapping hypervisor can decode.
#[derive(Clone, Copy, Debug)]
pub struct RawMmio {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the frame stays mapped, and any CPU may access it (guaranteed by the caller of `new`).
unsafe impl Send for RawMmio {}
// SAFETY: any CPU may access the frame, which stays mapped (guaranteed by the caller of `new`), and
// each access is a single load or store, so the device orders concurrent accesses.
unsafe impl Sync for RawMmio {}

impl RawMmio {
    /// Creates a handle to a frame of `bytes` bytes mapped at `base`.
    ///
    /// # Safety
    /// - `base..base + bytes` must be mapped as device memory for as long as the program runs, and
    ///   valid for volatile loads and stores of 8 (priorities), 32 and 64 bits from any CPU.
    /// - No Rust reference may point into this range.
    /// - `base` must be aligned to 8 bytes.
    /// - Memory that the device is told to write (tables) must not be used for anything else.
    ///   [`GicPlatform::allocate_table`](crate::GicPlatform::allocate_table) promises this.
    pub const unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self { base, bytes }
    }

    /// Returns the address of the register at `offset`.
    ///
    /// # Panics
    /// Panics if the register is misaligned or beyond the frame. Offsets are architectural
    /// constants, so a panic means that the mapped frame is too small.
    fn register<T>(&self, offset: u32) -> NonNull<T> {
        let start = offset as usize;
        let inside = start.checked_add(size_of::<T>()).is_some_and(|end| end <= self.bytes);
        if !inside || !start.is_multiple_of(size_of::<T>()) {
            misplaced(size_of::<T>(), offset, self.bytes);
        }
        // SAFETY: inside the frame (checked above), which does not wrap the address space
        // (guaranteed by the caller of `new`).
        unsafe { self.base.add(start).cast() }
    }
}

/// Panics. The values are not borrowed, so that [`RawMmio::register`] keeps them in registers.
#[cold]
#[inline(never)]
fn misplaced(size: usize, offset: u32, frame: usize) -> ! {
    panic!("a {size}-byte register at offset {offset:#x} does not fit a frame of {frame:#x} bytes")
}

impl Mmio for RawMmio {
    fn read32(&self, offset: u32) -> u32 {
        let register = self.register::<ReadPureWrite<u32>>(offset);
        // SAFETY: aligned, in a frame mapped as device memory (`register`, `new`). The pointer is
        // used for this access only. Concurrent accesses by other CPUs are also single accesses,
        // and the device orders them.
        unsafe { UniqueMmioPointer::new(register) }.read()
    }

    fn write32(&self, offset: u32, value: u32) {
        let register = self.register::<WriteOnly<u32>>(offset);
        // SAFETY: as in `read32`.
        unsafe { UniqueMmioPointer::new(register) }.write(value);
    }

    fn read64(&self, offset: u32) -> u64 {
        let register = self.register::<ReadPureWrite<u64>>(offset);
        // SAFETY: as in `read32`.
        unsafe { UniqueMmioPointer::new(register) }.read()
    }

    fn write64(&self, offset: u32, value: u64) {
        let register = self.register::<WriteOnly<u64>>(offset);
        // SAFETY: as in `read32`.
        unsafe { UniqueMmioPointer::new(register) }.write(value);
    }

    fn write8(&self, offset: u32, value: u8) {
        let register = self.register::<WriteOnly<u8>>(offset);
        // SAFETY: as in `read32`.
        unsafe { UniqueMmioPointer::new(register) }.write(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    #[repr(align(8))]
    struct Memory(UnsafeCell<[u8; 32]>);

    fn over(memory: &mut Memory) -> RawMmio {
        // SAFETY: plain memory accepts volatile accesses just like device memory. The memory is
        // borrowed for the whole test and has no other users.
        unsafe { RawMmio::new(NonNull::new(memory.0.get().cast()).unwrap(), 32) }
    }

    #[test]
    fn accesses_are_little_endian() {
        let mut memory = Memory(UnsafeCell::new([0; 32]));
        let mmio = over(&mut memory);
        mmio.write32(4, 0x1122_3344);
        mmio.write8(9, 0xab);
        mmio.write64(16, 0x0102_0304_0506_0708);
        assert_eq!(
            (mmio.read32(4), mmio.read32(8), mmio.read64(16)),
            (0x1122_3344, 0xab00, 0x0102_0304_0506_0708)
        );
        let mut expected = [0; 32];
        expected[4..8].copy_from_slice(&[0x44, 0x33, 0x22, 0x11]);
        expected[9] = 0xab;
        expected[16..24].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(*memory.0.get_mut(), expected);
    }

    #[test]
    #[should_panic(expected = "a 8-byte register at offset 0x1c does not fit a frame of 0x20 b")]
    fn an_access_across_the_end_of_the_frame_panics() {
        let mut memory = Memory(UnsafeCell::new([0; 32]));
        over(&mut memory).read64(28);
    }

    #[test]
    #[should_panic(expected = "a 4-byte register at offset 0x2 ")]
    fn a_misaligned_access_panics() {
        let mut memory = Memory(UnsafeCell::new([0; 32]));
        over(&mut memory).read32(2);
    }
}
