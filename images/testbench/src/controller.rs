//! The interrupt controller, whichever of the two architectures it is of: what the tests ask of either.

use crate::platform::Kernel;
use crate::report::{Outcome, Verdict};
use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use gic_arch::{Affinity, IntId, Lpi, Priority};
use gic_driver::cpu_interface::{Combined, SavedMask, SgiId};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, Gic, GicError, GicV2, Its};
use msi_types::{Cpu, Vector, WiredParent};

/// Set once it was seen that this QEMU's GICv2 (before 9.2) leaves what is pending at the old CPU when its target changes.
pub(crate) static LEAVES_PENDING: AtomicBool = AtomicBool::new(false);

/// A GIC.
pub(crate) enum Controller {
    /// GICv3 or GICv4: redistributors, and system registers.
    V3(Arc<Gic<Kernel>>),
    /// GICv2: at most eight CPUs, and memory-mapped CPU interfaces.
    V2(Arc<GicV2<Kernel>>),
}

impl Controller {
    /// Returns the GICv3, or the verdict that there is none.
    pub(crate) fn v3(&self) -> Result<&Arc<Gic<Kernel>>, Verdict> {
        match self {
            Self::V3(gic) => Ok(gic),
            Self::V2(_) => Err(Verdict::Skipped("no GICv3".into())),
        }
    }

    /// As the interrupt core takes it.
    pub(crate) fn wired(&self) -> Arc<dyn WiredParent> {
        match self {
            Self::V3(gic) => gic.clone(),
            Self::V2(gic) => gic.clone(),
        }
    }

    /// Makes this CPU take interrupts.
    pub(crate) fn cpu_on(&self, cpu: Cpu) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.cpu_on(cpu, &registers()).map(drop),
            Self::V2(gic) => gic.cpu_on(cpu),
        }
    }

    /// Makes this CPU take none any more.
    pub(crate) fn cpu_off(&self, cpu: Cpu) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.cpu_off(cpu, &registers()).map(drop),
            Self::V2(gic) => gic.cpu_off(cpu),
        }
    }

    pub(crate) fn is_on(&self, cpu: Cpu) -> bool {
        match self {
            Self::V3(gic) => gic.is_on(cpu),
            Self::V2(gic) => gic.is_on(cpu),
        }
    }

    /// Takes everything that is pending at this CPU, one after the other.
    pub(crate) fn take_all(&self, mut handle: impl FnMut(IntId)) {
        match self {
            Self::V3(gic) => {
                let interface: CpuInterface<_> = gic.cpu_interface(registers());
                while let Some(interrupt) = interface.acknowledge() {
                    handle(interrupt.intid());
                    interface.end(interrupt);
                }
            }
            Self::V2(gic) => {
                let interface = gic.cpu_interface();
                while let Some(interrupt) = interface.acknowledge() {
                    handle(interrupt.intid());
                    interface.end(interrupt);
                }
            }
        }
    }

    /// Sends an SGI to CPUs that are on. A GICv3 names them by affinity.
    pub(crate) fn send(&self, sgi: SgiId, to: &[(Cpu, Affinity)]) -> Outcome {
        match self {
            Self::V3(gic) => {
                let targets = to.iter().map(|(_, affinity)| *affinity);
                gic.cpu_interface(registers()).send_to(sgi, targets)?;
            }
            Self::V2(gic) => to.iter().try_for_each(|(cpu, _)| gic.send(sgi, *cpu))?,
        }
        Ok(())
    }

    /// Sends an SGI to all CPUs but this one.
    pub(crate) fn send_to_others(&self, sgi: SgiId) {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers()).send_to_others(sgi),
            Self::V2(gic) => gic.send_to_others(sgi),
        }
    }
}

/// Previous value of a priority mask.
pub(crate) enum Unmasked {
    V3(SavedMask),
    V2(Priority),
}

/// Priorities, of messages and at this CPU.
impl Controller {
    /// Gives a message its priority.
    pub(crate) fn set_priority(
        &self,
        its: Option<&Its<Kernel>>,
        vector: Vector,
        priority: Priority,
    ) -> Outcome {
        match self {
            Self::V3(_) => {
                let its = its.ok_or(Verdict::Skipped("no ITS".into()))?;
                let lpi =
                    Lpi::try_from(vector.get()).map_err(|_| Verdict::Failed("a vector is no LPI".into()))?;
                its.lpis().set_priority(lpi, priority)?;
                its.invalidate(lpi)?;
            }
            Self::V2(gic) => gic.interrupt(vector.into())?.set_priority(priority),
        }
        Ok(())
    }

    /// That of what this CPU handles.
    pub(crate) fn running_priority(&self) -> Priority {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers()).running_priority(),
            Self::V2(gic) => gic.cpu_interface().running_priority(),
        }
    }

    /// Returns the highest pending interrupt.
    pub(crate) fn highest_pending(&self) -> Option<IntId> {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers()).highest_pending(),
            Self::V2(gic) => gic.cpu_interface().highest_pending(),
        }
    }

    /// Holds back at this CPU what is not more urgent.
    pub(crate) fn mask_below(&self, threshold: Priority) -> Unmasked {
        match self {
            Self::V3(gic) => {
                let interface = gic.cpu_interface_with::<_, Combined>(registers());
                let scale = interface.priority_scale(gic.distributor().view());
                Unmasked::V3(interface.mask_below(scale.mask_for(threshold)))
            }
            Self::V2(gic) => {
                let interface = gic.cpu_interface();
                let before = interface.mask();
                interface.set_mask(threshold);
                Unmasked::V2(before)
            }
        }
    }

    /// Undoes [`mask_below`](Self::mask_below).
    pub(crate) fn restore_mask(&self, before: Unmasked) {
        match (self, before) {
            (Self::V3(gic), Unmasked::V3(saved)) => gic.cpu_interface(registers()).restore_mask(saved),
            (Self::V2(gic), Unmasked::V2(mask)) => gic.cpu_interface().set_mask(mask),
            _ => unreachable!("a machine has one controller"),
        }
    }
}

/// The CPU interface's registers of the CPU that asks.
pub(crate) fn registers() -> CpuRegisters {
    // SAFETY: `virt`'s CPUs with a GICv3 have its system registers, the image runs at EL1 or EL2, and the monitor
    // traps nothing. The vectors handle interrupts.
    unsafe { CpuRegisters::new() }
}
