//! Register access that a kernel's bus driver provides.

use msi_types::RequesterId;

/// The contexts in which a register may be accessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessContext {
    /// Accesses are allowed in any context, including hard-IRQ handlers. Accesses are
    /// memory-mapped, and do not take a lock that tasks hold with interrupts enabled.
    Any,
    /// Accesses are only allowed in tasks, because they use a mailbox, a hypercall, or a lock that
    /// tasks hold with interrupts enabled.
    Task,
}

/// One function's configuration space: 256 bytes, or 4096 on PCI Express. Accesses are aligned to
/// their width. Values are in CPU byte order, although registers are little-endian. Reads from a
/// removed function must return all ones. [`Ecam`](super::Ecam) implements this trait for
/// memory-mapped configuration space.
pub trait ConfigSpace: Send + Sync {
    /// Reads 8 bits.
    fn read8(&self, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read16(&self, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read32(&self, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write8(&self, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write16(&self, offset: u16, value: u16);
    /// Writes 32 bits as a single store.
    fn write32(&self, offset: u16, value: u32);

    /// Returns the contexts in which registers may be accessed. MSI mask bits can only be used in
    /// hard-IRQ context if this is [`AccessContext::Any`].
    fn context(&self) -> AccessContext {
        AccessContext::Task
    }

    /// Returns the requester ID with which the function's messages reach the host bridge, if the
    /// bus driver knows it. The ID is the function's own or that of a bridge. Used to detect a
    /// device that was attached with another requester ID.
    fn requester(&self) -> Option<RequesterId> {
        None
    }

    /// Returns the address of a bridge upstream of the function that does not forward the
    /// function's messages, because its Bus Master Enable is 0. If there are several, returns the
    /// one nearest to the function. Returns `None` if the bus driver knows of no such bridge. The
    /// provided method always returns `None`.
    fn closed_bridge(&self) -> Option<RequesterId> {
        None
    }
}

/// An ECAM window that the kernel mapped as device memory ([`MappedRegion`](super::MappedRegion)).
/// Values are in CPU byte order, although registers are little-endian.
pub trait EcamWindow: Send + Sync {
    /// Returns the window's length in bytes.
    fn length(&self) -> u64;
    /// Reads 8 bits at a byte offset below [`length`](Self::length).
    fn read8(&self, offset: u64) -> u8;
    /// Reads 16 bits at an aligned offset below [`length`](Self::length).
    fn read16(&self, offset: u64) -> u16;
    /// Reads 32 bits at an aligned offset below [`length`](Self::length).
    fn read32(&self, offset: u64) -> u32;
    /// Writes 8 bits at a byte offset below [`length`](Self::length).
    fn write8(&self, offset: u64, value: u8);
    /// Writes 16 bits at an aligned offset below [`length`](Self::length).
    fn write16(&self, offset: u64, value: u16);
    /// Writes 32 bits at an aligned offset below [`length`](Self::length), as a single store.
    fn write32(&self, offset: u64, value: u32);
}

/// A function's memory region (BAR) that the bus driver mapped. Accesses are 32 bits wide and
/// aligned. Implementations must perform them in program order and allow them in any context.
/// Values are in CPU byte order, although registers are little-endian.
/// [`MappedRegion`](super::MappedRegion) implements this trait.
pub trait TableMemory: Send + Sync {
    /// Returns the region's length in bytes.
    fn length(&self) -> u64;
    /// Reads 32 bits at an aligned byte offset below [`length`](Self::length).
    fn read32(&self, offset: u64) -> u32;
    /// Writes 32 bits at an aligned byte offset below [`length`](Self::length).
    fn write32(&self, offset: u64, value: u32);
}
