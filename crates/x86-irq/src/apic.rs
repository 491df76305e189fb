//! Local APICs: IDs, vectors, and the trait that a kernel must implement.

use core::fmt;
use msi_types::{Cpu, LocalCpu};

/// ID of a local APIC: 8 bits in xAPIC mode, 32 in x2APIC mode. Not to be confused with [`Cpu`],
/// which is the kernel's own dense number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ApicId(u32);

impl ApicId {
    /// Creates an APIC ID.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicId({})", self.0)
    }
}

impl fmt::Display for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Vector of a local APIC that a message may carry: 0x10 to 0xFE (SDM vol. 3A §11.11.2). The same
/// vector is a different interrupt on each CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicVector(u8);

impl ApicVector {
    /// Lowest vector.
    pub const MIN: Self = Self(0x10);
    /// Highest vector.
    pub const MAX: Self = Self(0xfe);

    /// Creates the vector with this number. Returns `None` unless the number is in the range from
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the vectors of `self..=last`.
    pub(crate) fn up_to(self, last: Self) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (self.0..=last.0).map(Self)
    }
}

impl fmt::Debug for ApicVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicVector({:#04x})", self.0)
    }
}

impl fmt::Display for ApicVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// A vector at one CPU. On x86, each interrupt has a CPU vector that no other interrupt uses.
#[doc(alias = "apic_chip_data")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuVector {
    /// The CPU.
    pub cpu: Cpu,
    /// Vector on which the CPU receives the interrupt.
    pub vector: ApicVector,
}

impl fmt::Display for CpuVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {} at CPU {}", self.vector, self.cpu)
    }
}

/// The kernel's access to its local APICs.
///
/// This crate calls these functions in any context and with its locks held, so they must not sleep,
/// and must not call back into this crate.
pub trait Apic: LocalCpu {
    /// Sends an interprocessor interrupt with fixed delivery, edge trigger and a physical
    /// destination. Implementations must return only after the APIC has sent the interrupt
    /// (delivery status idle, in xAPIC mode).
    fn send(&self, to: ApicId, vector: ApicVector);

    /// Returns `true` if `cpu` has accepted the vector but not begun to serve it, according to the
    /// vector's bit in the interrupt request register. Returns `None` if the register cannot be
    /// read (a CPU can only access its own APIC). [`VectorDomain::clean_up`] and
    /// [`VectorDomain::offline`] call this on the CPU itself, where it must not return `None`.
    ///
    /// [`VectorDomain::clean_up`]: crate::VectorDomain::clean_up
    /// [`VectorDomain::offline`]: crate::VectorDomain::offline
    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool>;

    /// Ensures that `cpu` calls [`VectorDomain::clean_up`](crate::VectorDomain::clean_up) soon, for
    /// example through a dedicated IPI or at the CPU's next timer tick. The CPU is online, or has
    /// just gone [offline](crate::VectorDomain::offline); in the latter case it has no vectors left
    /// to clean up, and the request may be dropped.
    fn request_cleanup(&self, cpu: Cpu);
}
