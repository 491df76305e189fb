//! Configuration of a vector domain.

use crate::apic::{Apic, ApicVector};
use crate::message::DestinationFormat;
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;

/// The lowest vector that is no exception.
const FIRST_EXTERNAL: u8 = 0x20;
/// Vectors above are usually the kernel's: interprocessor interrupts, timer, errors.
const LAST_EXTERNAL: u8 = 0xeb;
/// The system call of 32-bit systems.
const SYSTEM_CALL: &[ApicVector] = &[ApicVector::new(0x80).unwrap()];
/// Memory for this many interrupts is little; more are asked for.
const MOST_BY_DEFAULT: u16 = 16384;

/// Configuration of a [`VectorDomain`](crate::VectorDomain).
#[non_exhaustive]
pub struct VectorDomainConfig<'a> {
    /// Number of CPUs that are or can come on line.
    pub cpus: NonZeroU16,
    /// Maximum number of interrupts at a time, on all CPUs together. Memory for all of them, about
    /// 64 bytes each, is allocated at creation. A machine may have more vectors than this type can
    /// count: 512 CPUs have about 103,000.
    pub hwirqs: NonZeroU16,
    /// The vectors to hand out.
    pub window: RangeInclusive<ApicVector>,
    /// Those of them that are the kernel's own, on all CPUs.
    pub system: &'a [ApicVector],
    /// Format of messages' destinations.
    pub destinations: DestinationFormat,
    /// The kernel.
    pub apic: Arc<dyn Apic>,
}

impl<'a> VectorDomainConfig<'a> {
    /// Vectors 0x20 to 0xEB but for 0x80, 8-bit destinations, as many interrupts as there are
    /// vectors, up to 16384.
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
