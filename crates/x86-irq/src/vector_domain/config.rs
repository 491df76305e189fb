//! Configuration of a vector domain.

use crate::apic::{Apic, ApicVector};
use crate::message::DestinationFormat;
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;

/// Lowest vector that is not reserved for exceptions.
const FIRST_EXTERNAL: u8 = 0x20;
/// Highest vector by default; kernels usually use higher vectors for interprocessor interrupts, the
/// timer and errors.
const LAST_EXTERNAL: u8 = 0xeb;
/// System call vector of 32-bit kernels.
const SYSTEM_CALL: &[ApicVector] = &[ApicVector::new(0x80).unwrap()];
/// Default limit, which keeps memory use small; a caller may request more.
const MOST_BY_DEFAULT: u16 = 16384;

/// Configuration of a [`VectorDomain`](crate::VectorDomain).
#[non_exhaustive]
pub struct VectorDomainConfig<'a> {
    /// Number of CPUs that are online or can come online.
    pub cpus: NonZeroU16,
    /// Maximum number of interrupts in use at a time, across all CPUs. Memory for all of them,
    /// about 64 bytes each, is allocated at creation. A large machine may have more vectors than
    /// this type can count: 512 CPUs have about 103,000.
    pub hwirqs: NonZeroU16,
    /// Vectors that may be allocated.
    pub window: RangeInclusive<ApicVector>,
    /// Vectors in the window that are reserved for the kernel, on all CPUs.
    pub system: &'a [ApicVector],
    /// Format of destinations in messages.
    pub destinations: DestinationFormat,
    /// The kernel's access to the local APICs.
    pub apic: Arc<dyn Apic>,
}

impl<'a> VectorDomainConfig<'a> {
    /// Creates a configuration with vectors 0x20 to 0xEB except for 0x80, with 8-bit destinations,
    /// and one hwirq per vector, up to 16384.
    pub fn new(cpus: NonZeroU16, apic: Arc<dyn Apic>) -> Self {
        let vector = |number| ApicVector::new(number).unwrap_or(ApicVector::MAX);
        let per_cpu = u16::from(LAST_EXTERNAL - FIRST_EXTERNAL);
        let hwirqs = cpus.get().saturating_mul(per_cpu).min(MOST_BY_DEFAULT);
        Self {
            cpus,
            hwirqs: NonZeroU16::new(hwirqs).unwrap_or(NonZeroU16::MIN),
            window: vector(FIRST_EXTERNAL)..=vector(LAST_EXTERNAL),
            system: SYSTEM_CALL,
            destinations: DestinationFormat::Xapic,
            apic,
        }
    }

    msi_types::setters! {
        with_cpus: cpus: NonZeroU16,
        with_hwirqs: hwirqs: NonZeroU16,
        with_window: window: RangeInclusive<ApicVector>,
        with_system: system: &'a [ApicVector],
        with_destinations: destinations: DestinationFormat,
        with_apic: apic: Arc<dyn Apic>,
    }
}

impl fmt::Debug for VectorDomainConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorDomainConfig")
            .field("cpus", &self.cpus)
            .field("hwirqs", &self.hwirqs)
            .field("window", &self.window)
            .field("system", &self.system)
            .field("destinations", &self.destinations)
            .finish_non_exhaustive()
    }
}
