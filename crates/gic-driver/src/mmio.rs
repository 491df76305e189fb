//! Access to mapped register frames.

mod raw;

pub use raw::RawMmio;

use gic_arch::{RawRegister, Readable, Reg, RegisterValue, Writable};

/// A mapped frame, or several adjacent ones. This is a cheap handle with `&self` access, because
/// any CPU may use any frame (e.g. to invalidate at another CPU's redistributor). Offsets are byte
/// offsets from the frame's base. They come from the constants in [`gic_arch`], and are aligned to
/// the access width.
///
/// Implementations must order accesses to one frame as device memory does. Drivers use the typed
/// [`MmioExt`].
pub trait Mmio: Send + Sync {
    /// Reads 32 bits.
    fn read32(&self, offset: u32) -> u32;
    /// Writes 32 bits.
    fn write32(&self, offset: u32, value: u32);
    /// Reads 64 bits.
    fn read64(&self, offset: u32) -> u64;
    /// Writes 64 bits.
    fn write64(&self, offset: u32, value: u64);
    /// Writes 8 bits. The drivers use this to set one priority without writing the neighboring
    /// ones.
    fn write8(&self, offset: u32, value: u8);

    /// Orders later loads of memory after earlier register reads. If a register read returns a
    /// result of another CPU's action, these loads observe all stores that the CPU made before the
    /// action.
    fn read_barrier(&self) {
        // Ordering: only later accesses must wait for earlier loads, and every acknowledgment
        // executes this.
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
    }
}

/// A register access width.
pub trait Width: RawRegister {
    /// Reads a value of this width at `offset`.
    fn load<M: Mmio + ?Sized>(mmio: &M, offset: u32) -> Self;
    /// Writes a value of this width at `offset`.
    fn store<M: Mmio + ?Sized>(mmio: &M, offset: u32, value: Self);
}

impl Width for u32 {
    fn load<M: Mmio + ?Sized>(mmio: &M, offset: u32) -> Self {
        mmio.read32(offset)
    }
    fn store<M: Mmio + ?Sized>(mmio: &M, offset: u32, value: Self) {
        mmio.write32(offset, value);
    }
}

impl Width for u64 {
    fn load<M: Mmio + ?Sized>(mmio: &M, offset: u32) -> Self {
        mmio.read64(offset)
    }
    fn store<M: Mmio + ?Sized>(mmio: &M, offset: u32, value: Self) {
        mmio.write64(offset, value);
    }
}

/// Typed register access. Reading a write-only register or writing a read-only one does not
/// compile.
pub trait MmioExt: Mmio {
    /// Reads a register.
    fn read<V: RegisterValue<Raw: Width>, A: Readable>(&self, register: Reg<V, A>) -> V {
        V::from(V::Raw::load(self, register.offset()))
    }

    /// Writes a register.
    fn write<V: RegisterValue<Raw: Width>, A: Writable>(&self, register: Reg<V, A>, value: V) {
        V::Raw::store(self, register.offset(), value.into());
    }
}

impl<M: Mmio + ?Sized> MmioExt for M {}
