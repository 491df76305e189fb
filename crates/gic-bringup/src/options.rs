//! Bring-up options, and driver types. Each driver is built only if its feature is enabled.

use alloc::sync::Arc;
use core::convert::Infallible;
use core::marker::PhantomData;
use core::ops::Deref;
#[cfg(feature = "direct-lpi")]
use gic_driver::direct_lpi::ResendObserver;
use gic_driver::{BridgeMsi, DirectLpi, GicV2, Its, ItsConfig, Mbi, Mip, Priorities, V2m};
use gic_firmware::Controller;
use irq_domain::AffinityPolicy;
use msi_types::Surroundings;

/// Bring-up options chosen by the kernel.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options<'a> {
    pub(crate) max_cpus: usize,
    pub(crate) lpi_id_bits: Option<u8>,
    pub(crate) drives: &'a dyn Fn(&Controller) -> bool,
    pub(crate) its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
    pub(crate) priorities: Priorities,
    pub(crate) policy: Option<Arc<dyn AffinityPolicy>>,
    pub(crate) surroundings: Surroundings,
    #[cfg(feature = "direct-lpi")]
    pub(crate) resend_observer: Option<Arc<dyn ResendObserver>>,
}

impl<'a> Options<'a> {
    msi_types::setters! {
        /// Sets the maximum number of CPUs. If firmware enables more CPUs, only the first CPUs are
        /// used.
        with_max_cpus: max_cpus: usize,
        /// Sets the maximum INTID bits for LPIs; `None` selects [the driver's
        /// default](gic_driver::lpi::DEFAULT_ID_BITS).
        with_lpi_id_bits: lpi_id_bits: Option<u8>,
        /// Sets the filter for controllers that firmware enables: returns `true` if the controller
        /// should be driven.
        with_drives: drives: &'a dyn Fn(&Controller) -> bool,
        /// Sets the hook that adjusts an ITS configuration: NUMA node, targets, DeviceID bits and
        /// command queue size. The default configuration is derived from firmware's description and
        /// [takes over](gic_driver::its::IfEnabled::TakeOver) an ITS that is already enabled.
        with_its: its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
        /// Sets the interrupt priorities and the priority mask. A GICv2 uses only the wired
        /// priorities and the mask. [`Irqchip::set_priority`](crate::Irqchip::set_priority) changes
        /// the priority of a single interrupt.
        with_priorities: priorities: Priorities,
        /// Sets the policy for choosing target CPUs; `None` selects
        /// [`RoundRobin`](irq_domain::RoundRobin).
        with_policy: policy: Option<Arc<dyn AffinityPolicy>>,
        /// Sets whether the kernel runs on bare metal or in a guest. The default is a guest whose
        /// hypervisor only traps: devices that store messages in memory of their own (IMS,
        /// platform devices) are refused. [Firmware's explicit
        /// sign](gic_firmware::Description::hypervisor) of a hypervisor overrules a stated bare
        /// metal ([`Irqchip::surroundings`](crate::Irqchip::surroundings)).
        with_surroundings: surroundings: Surroundings,
    }

    /// Returns the default options for a kernel that states bare metal.
    pub fn bare_metal() -> Self {
        Self::default().with_surroundings(Surroundings::BareMetal)
    }

    /// Returns the options with this observer.
    #[cfg(feature = "direct-lpi")]
    #[doc(hidden)]
    pub fn with_resend_observer(self, resend_observer: Option<Arc<dyn ResendObserver>>) -> Self {
        Self { resend_observer, ..self }
    }
}

impl Default for Options<'_> {
    /// Selects every CPU and every controller, and the behavior of a guest.
    fn default() -> Self {
        Self {
            max_cpus: usize::MAX,
            lpi_id_bits: None,
            drives: &|_| true,
            its: &|_, config| config,
            priorities: Priorities::default(),
            policy: None,
            surroundings: Surroundings::default(),
            #[cfg(feature = "direct-lpi")]
            resend_observer: None,
        }
    }
}

msi_types::debug_by!(
    Options<'_> as "Options",
    |it| {max_cpus: it.max_cpus, lpi_id_bits: it.lpi_id_bits, priorities: it.priorities}
);

/// Placeholder for a driver whose feature is disabled. The type has no values, so the compiler
/// removes any code that would use one.
#[derive(Debug)]
pub struct Absent<D>(Infallible, PhantomData<fn() -> D>);

impl<D> Deref for Absent<D> {
    type Target = D;

    fn deref(&self) -> &D {
        match self.0 {}
    }
}

/// Driver for a controller inside a host bridge.
#[cfg(feature = "bridge-msi")]
pub type BridgeMsiDriver<P> = Arc<BridgeMsi<P>>;
/// Driver for a controller inside a host bridge (not part of this build).
#[cfg(not(feature = "bridge-msi"))]
pub type BridgeMsiDriver<P> = Absent<Arc<BridgeMsi<P>>>;

/// Driver for an ITS.
#[cfg(feature = "its")]
pub type ItsDriver<P> = Arc<Its<P>>;
/// Driver for an ITS (not part of this build).
#[cfg(not(feature = "its"))]
pub type ItsDriver<P> = Absent<Arc<Its<P>>>;

/// Driver for direct LPIs.
#[cfg(feature = "direct-lpi")]
pub type DirectLpiDriver<P> = Arc<DirectLpi<P>>;
/// Driver for direct LPIs (not part of this build).
#[cfg(not(feature = "direct-lpi"))]
pub type DirectLpiDriver<P> = Absent<Arc<DirectLpi<P>>>;

/// Driver for message-based SPIs.
#[cfg(feature = "mbi")]
pub type MbiDriver<P> = Arc<Mbi<P>>;
/// Driver for message-based SPIs (not part of this build).
#[cfg(not(feature = "mbi"))]
pub type MbiDriver<P> = Absent<Arc<Mbi<P>>>;

/// Driver for a MIP.
#[cfg(feature = "mip")]
pub type MipDriver<P> = Arc<Mip<P>>;
/// Driver for a MIP (not part of this build).
#[cfg(not(feature = "mip"))]
pub type MipDriver<P> = Absent<Arc<Mip<P>>>;

/// Driver for a GICv2m frame.
#[cfg(feature = "v2m")]
pub type V2mDriver<P> = Arc<V2m<P>>;
/// Driver for a GICv2m frame (not part of this build).
#[cfg(not(feature = "v2m"))]
pub type V2mDriver<P> = Absent<Arc<V2m<P>>>;

/// Driver for a GICv2.
#[cfg(feature = "gicv2")]
pub type GicV2Driver<P> = Arc<GicV2<Arc<P>>>;
/// Driver for a GICv2 (not part of this build).
#[cfg(not(feature = "gicv2"))]
pub type GicV2Driver<P> = Absent<Arc<GicV2<Arc<P>>>>;
