//! Configuration of a vector domain.

use crate::apic::{Apic, ApicVector};
use crate::message::DestinationFormat;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use msi_types::Surroundings;

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
    pub(crate) cpus: NonZeroU16,
    pub(crate) hwirqs: NonZeroU16,
    pub(crate) window: RangeInclusive<ApicVector>,
    pub(crate) system: &'a [ApicVector],
    pub(crate) destinations: DestinationFormat,
    pub(crate) surroundings: Surroundings,
    /// The kernel's access to the local APICs.
    pub(crate) apic: Arc<dyn Apic>,
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
            surroundings: Surroundings::default(),
            apic,
        }
    }

    msi_types::setters! {
        /// Sets the maximum number of interrupts in use at a time, across all CPUs. Memory for all
        /// of them, about 64 bytes each, is allocated at creation. A large machine may have more
        /// vectors than this type can count: 512 CPUs have about 103,000.
        with_hwirqs: hwirqs: NonZeroU16,
        /// Sets the vectors that may be allocated.
        with_window: window: RangeInclusive<ApicVector>,
        /// Sets the vectors in the window that are reserved for the kernel, on all CPUs.
        with_system: system: &'a [ApicVector],
        /// Sets the format of destinations in messages.
        with_destinations: destinations: DestinationFormat,
    }

    /// States whether the kernel runs on bare metal or in a guest. `leaf_1_ecx` is the register ECX
    /// that CPUID returns for leaf 1. Its bit 31 is 0 on every physical processor and 1 under a
    /// hypervisor that does not hide (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.3.2),
    /// and overrules a stated bare metal. Without this statement, the domain behaves as in a guest
    /// whose hypervisor only traps.
    #[must_use]
    pub const fn with_surroundings(mut self, stated: Surroundings, leaf_1_ecx: u32) -> Self {
        let is_guest = leaf_1_ecx >> 31 == 1;
        self.surroundings = if is_guest { stated.beside_hypervisor() } else { stated };
        self
    }
}

msi_types::debug_by!(
    VectorDomainConfig<'_> as "VectorDomainConfig",
    |it| {cpus: it.cpus, hwirqs: it.hwirqs, window: it.window, system: it.system, destinations: it.destinations}
);
