//! Bring-up options.

use alloc::sync::Arc;
use core::fmt;
use gic_driver::ItsConfig;
use gic_driver::direct_lpi::ResendObserver;
use gic_driver::gic::Priorities;
use gic_firmware::Controller;
use irq_domain::AffinityPolicy;

/// Bring-up options chosen by the kernel.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options<'a> {
    /// Maximum number of CPUs. If firmware enables more CPUs, only the first CPUs are used.
    pub max_cpus: usize,
    /// Maximum INTID bits for LPIs; `None` selects [the driver's
    /// default](gic_driver::lpi::DEFAULT_ID_BITS).
    pub lpi_id_bits: Option<u8>,
    /// Filter for controllers that firmware enables: returns `true` if the controller should be
    /// driven.
    pub drives: &'a dyn Fn(&Controller) -> bool,
    /// Hook that adjusts an ITS configuration: NUMA node, targets, DeviceID bits and command queue
    /// size. The default configuration is derived from firmware's description and [takes
    /// over](gic_driver::its::IfEnabled::TakeOver) an ITS that is already enabled.
    pub its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
    /// Interrupt priorities and the priority mask. A GICv2 uses only the wired priorities and the
    /// mask. [`Irqchip::set_priority`](crate::Irqchip::set_priority) changes the priority of a
    /// single interrupt.
    pub priorities: Priorities,
    /// Policy for choosing target CPUs; `None` selects
    /// [`RoundRobin`](irq_domain::RoundRobin).
    pub policy: Option<Arc<dyn AffinityPolicy>>,
    /// Observer called for each direct LPI that the driver itself resends. Intended for tests; not
    /// part of the public interface.
    #[doc(hidden)]
    pub resend_observer: Option<Arc<dyn ResendObserver>>,
}

impl<'a> Options<'a> {
    msi_types::setters! {
        with_max_cpus: max_cpus: usize,
        with_lpi_id_bits: lpi_id_bits: Option<u8>,
        with_drives: drives: &'a dyn Fn(&Controller) -> bool,
        with_its: its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
        with_priorities: priorities: Priorities,
        with_policy: policy: Option<Arc<dyn AffinityPolicy>>,
    }

    /// Returns the options with this observer.
    #[doc(hidden)]
    pub fn with_resend_observer(self, resend_observer: Option<Arc<dyn ResendObserver>>) -> Self {
        Self { resend_observer, ..self }
    }
}

impl Default for Options<'_> {
    /// Selects every CPU and every controller.
    fn default() -> Self {
        Self {
            max_cpus: usize::MAX,
            lpi_id_bits: None,
            drives: &|_| true,
            its: &|_, config| config,
            priorities: Priorities::default(),
            policy: None,
            resend_observer: None,
        }
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_cpus", &self.max_cpus)
            .field("lpi_id_bits", &self.lpi_id_bits)
            .field("priorities", &self.priorities)
            .finish_non_exhaustive()
    }
}
