//! Services of a kernel's bus driver.

/// The context in which an access may be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessContext {
    /// Accesses may be made in any context, including hard-IRQ handlers: they are memory-mapped,
    /// and use no lock that tasks hold with interrupts enabled.
    Any,
    /// Accesses may be made only by tasks, because they use a mailbox, a hypercall, or such a lock.
    Task,
}

/// The configuration space of one function: 256 bytes, or 4096 on PCI Express. Values are numbers
/// in CPU byte order, although registers are little-endian; accesses are aligned to their width.
/// Reads of a removed function must return all ones. [`Ecam`](super::Ecam) implements the trait for
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
    /// Writes 32 bits, as one store.
    fn write32(&self, offset: u16, value: u32);

    /// Returns the context in which accesses may be made. MSI's mask bits can be used in hard-IRQ
    /// context only if this is [`AccessContext::Any`].
    fn context(&self) -> AccessContext {
        AccessContext::Task
    }
}

/// An ECAM window that the kernel mapped as device memory ([`MappedRegion`](super::MappedRegion)).
/// Values are numbers in CPU byte order, although registers are little-endian.
pub trait EcamWindow: Send + Sync {
    /// Returns the length of the window in bytes.
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
    /// Writes 32 bits at an aligned offset below [`length`](Self::length), as one store.
    fn write32(&self, offset: u64, value: u32);
}

/// A memory region of a function (a BAR) that the bus driver mapped. Accesses are 32 bits wide and
/// aligned. Implementations must perform them in program order and allow them in any context.
/// Values are numbers in CPU byte order, although registers are little-endian.
/// [`MappedRegion`](super::MappedRegion) implements the trait.
pub trait TableMemory: Send + Sync {
    /// Returns the length of the region in bytes.
    fn length(&self) -> u64;
    /// Reads 32 bits at an aligned byte offset below [`length`](Self::length).
    fn read32(&self, offset: u64) -> u32;
    /// Writes 32 bits at an aligned byte offset below [`length`](Self::length).
    fn write32(&self, offset: u64, value: u32);
}
