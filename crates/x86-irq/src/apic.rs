//! Local APICs: their names, their vectors, and what a kernel does with them for this crate.

use core::fmt;
use msi_types::{Cpu, LocalCpu};

/// A local APIC's ID: 8 bits in xAPIC mode, 32 in x2APIC mode. Never a [`Cpu`], which is the
/// kernel's own dense number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ApicId(u32);

impl ApicId {
    /// The APIC with this ID.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The ID.
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

/// A vector of a local APIC that a message may carry: 0x10 to 0xFE (SDM vol. 3A §11.11.2). The same
/// number means another interrupt on each CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicVector(u8);

impl ApicVector {
    /// The lowest.
    pub const MIN: Self = Self(0x10);
    /// The highest.
    pub const MAX: Self = Self(0xfe);

    /// The vector with this number; `None` outside [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The vectors of `self..=last`.
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

/// A CPU and a vector of it, which an interrupt on x86 has to itself.
#[doc(alias = "apic_chip_data")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuVector {
    /// The CPU.
    pub cpu: Cpu,
    /// The vector that it takes the interrupt as.
    pub vector: ApicVector,
}

impl fmt::Display for CpuVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {} at CPU {}", self.vector, self.cpu)
    }
}

/// The kernel's access to its local APICs. Every function may be called in any context and with
/// locks held: it calls nothing of this crate.
pub trait Apic: LocalCpu {
    /// Sends an interprocessor interrupt: fixed, edge, physical destination. Returns once the APIC
    /// has sent it (delivery status idle, in xAPIC mode).
    fn send(&self, to: ApicId, vector: ApicVector);

    /// Has `cpu` accepted the vector and not begun to serve it (its bit in the interrupt request
    /// register)? `None` where that cannot be asked: an APIC answers its own CPU alone.
    /// [`VectorDomain::clean_up`] and [`VectorDomain::offline`] ask on the CPU itself, and need an
    /// answer.
    ///
    /// [`VectorDomain::clean_up`]: crate::VectorDomain::clean_up
    /// [`VectorDomain::offline`]: crate::VectorDomain::offline
    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool>;

    /// Sees to it that `cpu` calls [`VectorDomain::clean_up`](crate::VectorDomain::clean_up) soon:
    /// by an interprocessor interrupt of its own, or at its next timer tick. Called for CPUs that
    /// are on line, or that went [off line](crate::VectorDomain::offline) a moment ago. There is
    /// then nothing left to clean up, and the request is dropped.
    fn request_cleanup(&self, cpu: Cpu);
}
