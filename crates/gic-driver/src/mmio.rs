//! Access to a mapped register frame.

mod raw;

pub use raw::RawMmio;

use gic_arch::{RawRegister, Readable, Reg, RegisterValue, Writable};

/// One mapped frame, or several adjacent ones. A cheap handle with `&self` access, because any CPU
/// may use any frame (for example to invalidate at another CPU's redistributor). Offsets are in
/// bytes from the frame's base. They come from [`gic_arch`]'s constants and are aligned to the
/// width of the access.
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
    /// Writes 8 bits. Used to set a single priority without disturbing its neighbors.
    fn write8(&self, offset: u32, value: u8);

    /// Orders later loads of memory after earlier register reads. If a register shows the effect of
    /// another CPU's action, that CPU's earlier stores are visible to these loads.
    fn read_barrier(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
    }
}

/// A width in which registers are accessed.
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

/// Typed register access. A read of a write-only register or a write of a read-only one does not
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
