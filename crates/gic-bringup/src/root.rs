//! The root controller: a GICv2 or a GICv3.

use crate::config::{GicV2Driver, RootConfig};
use crate::error::BringUpError;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::try_arc;
use gic_arch::{IntId, Priority, SgiId};
use gic_driver::cpu_interface::{Active, EoiMode, SplitEoi};
use gic_driver::lpi::PendingLpis;
use gic_driver::{Gic, GicCpuInterface, GicError, GicPlatform, GicV2, SystemRegisters};
use msi_types::explain::Explanation;
use msi_types::{Cpu, HwIrq, WiredParent};

/// The GIC that signals interrupts to the CPUs.
pub enum RootGic<P: GicPlatform> {
    /// GICv3 or later, with redistributors and system-register CPU interfaces.
    V3(Arc<Gic<P>>),
    /// GICv2, with at most eight CPUs and memory-mapped CPU interfaces. If the feature `gicv2` is
    /// disabled, the variant holds [`Absent`](crate::Absent) and can't be constructed.
    V2(GicV2Driver<P>),
}

impl<P: GicPlatform> RootGic<P> {
    pub(crate) fn new(platform: Arc<P>, config: RootConfig) -> Result<Self, BringUpError> {
        Ok(match config {
            RootConfig::V3(config) => Self::V3(try_arc(Gic::new(platform, config)?)?),
            #[cfg(not(feature = "gicv2"))]
            RootConfig::V2(_) => return Err(BringUpError::NotBuilt),
            #[cfg(feature = "gicv2")]
            RootConfig::V2(config) => {
                let boot = platform.cpu();
                Self::V2(try_arc(GicV2::new(platform, config, boot)?)?)
            }
        })
    }

    /// Returns the GICv3, or `None` if the root controller is a GICv2.
    pub fn v3(&self) -> Option<&Arc<Gic<P>>> {
        match self {
            Self::V3(gic) => Some(gic),
            Self::V2(_) => None,
        }
    }

    /// Returns `true` if the CPU is online.
    pub fn is_on(&self, cpu: Cpu) -> bool {
        match self {
            Self::V3(gic) => gic.is_on(cpu),
            Self::V2(gic) => gic.is_on(cpu),
        }
    }

    /// Sends an SGI to online CPUs, possibly including the caller's. Stores made before the call
    /// are visible to the receivers.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`], [`GicError::CpuOff`], [`GicError::SgiOutOfReach`]. In case of an
    /// error, a GICv3 sends no SGI, whereas a GICv2 has already sent the SGI to the CPUs that
    /// precede the invalid CPU.
    pub fn send(
        &self,
        sgi: SgiId,
        to: &[Cpu],
        registers: &impl SystemRegisters,
    ) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => {
                if let Some(unknown) = to.iter().find(|cpu| gic.affinity(**cpu).is_none()) {
                    return Err(GicError::UnknownCpu(*unknown));
                }
                if let Some(off) = to.iter().find(|cpu| !gic.is_on(**cpu)) {
                    return Err(GicError::CpuOff(*off));
                }
                let targets = to.iter().filter_map(|cpu| gic.affinity(*cpu));
                gic.cpu_interface(registers).send_to(sgi, targets)
            }
            Self::V2(gic) => to.iter().try_for_each(|cpu| gic.send(sgi, *cpu)),
        }
    }

    /// Sends an SGI to all CPUs except the calling one.
    ///
    /// Context: any.
    pub fn send_to_others(&self, sgi: SgiId, registers: &impl SystemRegisters) {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers).send_to_others(sgi),
            Self::V2(gic) => gic.send_to_others(sgi),
        }
    }

    /// Acknowledges and handles the calling CPU's interrupts one by one until none is pending.
    /// `registers` is not used with a GICv2.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn take_all(&self, registers: &impl SystemRegisters, mut handle: impl FnMut(IntId)) {
        match self {
            Self::V3(gic) => {
                let interface = gic.cpu_interface(registers);
                while let Some(interrupt) = interface.acknowledge() {
                    handle(interrupt.intid());
                    gic.end(&interface, interrupt);
                }
            }
            Self::V2(gic) => gic.cpu_interface().handle_pending(handle),
        }
    }

    /// Acknowledges and handles the calling CPU's interrupts one by one until none is pending. The
    /// GIC must have been configured for [`SplitEoi`]. `handle` is called after the priority drop,
    /// so more interrupts may be signaled while it runs. An interrupt that `handle` returns is
    /// deactivated; an interrupt that `handle` [hands over](Active::hand_over) stays active.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub(crate) fn take_all_split(
        &self,
        registers: &impl SystemRegisters,
        mut handle: impl FnMut(Active) -> Option<Active>,
    ) {
        match self {
            Self::V3(gic) => {
                let interface = gic.cpu_interface_with::<_, SplitEoi>(registers);
                while let Some(interrupt) = interface.acknowledge() {
                    if let Some(active) = handle(gic.end(&interface, interrupt)) {
                        gic.deactivate(&interface, active);
                    }
                }
            }
            Self::V2(gic) => {
                let interface = gic.cpu_interface_with::<SplitEoi>();
                while let Some(interrupt) = interface.acknowledge() {
                    if let Some(active) = handle(interface.end(interrupt)) {
                        interface.deactivate(active);
                    }
                }
            }
        }
    }

    /// Explains whether the interface of the calling CPU, `cpu`, signals an interrupt with this
    /// priority.
    pub(crate) fn explain_interface<S: SystemRegisters>(
        &self,
        (cpu, registers): (Cpu, &S),
        interrupt: HwIrq,
        priority: Priority,
    ) -> Explanation {
        match self {
            Self::V3(gic) => gic.explain_interface((cpu, registers), interrupt, priority),
            Self::V2(gic) => {
                gic.explain_interface((cpu, registers.irqs_masked()), interrupt, priority)
            }
        }
    }

    /// Changes the priority of a wired interrupt. A private interrupt's priority changes only on
    /// the calling CPU.
    pub(crate) fn set_priority(&self, intid: IntId, priority: Priority) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.interrupt(intid)?.set_priority(priority),
            Self::V2(gic) => gic.interrupt(intid)?.set_priority(priority),
        }
        Ok(())
    }

    /// Makes the calling CPU take interrupts. Returns the state of its pending LPIs, or `None` if
    /// it can't take LPIs.
    pub(crate) fn cpu_on<E: EoiMode>(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Result<Option<PendingLpis>, GicError> {
        match self {
            Self::V3(gic) => {
                let attached = gic.cpu_on_with::<_, E>(cpu, registers)?;
                Ok(attached.map(|attached| attached.pending))
            }
            Self::V2(gic) => gic.cpu_on_with::<E>(cpu).map(|()| None),
        }
    }

    pub(crate) fn cpu_off(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.cpu_off(cpu, registers),
            Self::V2(gic) => gic.cpu_off(cpu),
        }
    }
}

impl<P: GicPlatform + 'static> RootGic<P> {
    /// Returns the parent for wired interrupts, which the interrupt core and the message-based SPI
    /// drivers need.
    pub fn wired(&self) -> Arc<dyn WiredParent> {
        match self {
            Self::V3(gic) => gic.clone(),
            Self::V2(gic) => Arc::<GicV2<Arc<P>>>::clone(gic),
        }
    }
}

/// Formats a summary with the number of CPUs that are on.
impl<P: GicPlatform> fmt::Debug for RootGic<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V3(gic) => {
                let (on, all) = (gic.cpus().filter(|cpu| gic.is_on(*cpu)).count(), gic.cpus());
                f.debug_struct("GicV3")
                    .field("distributor", &format_args!("{:#x}", gic.distributor().address()))
                    .field("view", &gic.distributor().view())
                    .field("cpus", &format_args!("{on} of {} on", all.count()))
                    .finish_non_exhaustive()
            }
            Self::V2(gic) => {
                let (on, all) = (gic.cpus().filter(|cpu| gic.is_on(*cpu)).count(), gic.cpus());
                f.debug_struct("GicV2")
                    .field("cpus", &format_args!("{on} of {} on", all.count()))
                    .finish_non_exhaustive()
            }
        }
    }
}
