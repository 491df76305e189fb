//! The root controller (GICv2 or GICv3), with additional operations for tests.

use crate::platform::Kernel;
use crate::report::{Outcome, Verdict};
use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use gic_arch::{IntId, Lpi, Priority};
use gic_bringup::RootGic;
use gic_driver::cpu_interface::{CombinedEoi, SavedMask};
use gic_driver::{Gic, Its};
pub(crate) use image_rt::platform::registers;
use msi_types::HwIrq;

/// `true` once a test has found that the GICv2 of this QEMU (before 9.2) leaves an interrupt
/// pending at the old CPU when its target changes.
pub(crate) static LEAVES_PENDING: AtomicBool = AtomicBool::new(false);

/// The root controller.
pub(crate) type Controller = RootGic<Kernel>;

/// Previous value of a priority mask.
pub(crate) enum Unmasked {
    V3(SavedMask),
    V2(Priority),
}

/// Root controller operations that only tests need.
pub(crate) trait Tested {
    /// Returns the GICv3, or a verdict that skips the test if the machine has none.
    fn gicv3(&self) -> Result<&Arc<Gic<Kernel>>, Verdict>;
    /// Changes the priority of a message's interrupt.
    fn set_priority(&self, its: Option<&Its<Kernel>>, hwirq: HwIrq, priority: Priority) -> Outcome;
    /// Returns the running priority of this CPU.
    fn running_priority(&self) -> Priority;
    /// Returns the highest-priority pending interrupt.
    fn highest_pending(&self) -> Option<IntId>;
    /// Masks interrupts on this CPU that are not more urgent than `threshold`.
    fn mask_below(&self, threshold: Priority) -> Unmasked;
    /// Undoes [`mask_below`](Self::mask_below).
    fn restore_mask(&self, before: Unmasked);
}

impl Tested for Controller {
    fn gicv3(&self) -> Result<&Arc<Gic<Kernel>>, Verdict> {
        self.v3().ok_or(Verdict::Skipped("no GICv3".into()))
    }

    fn set_priority(&self, its: Option<&Its<Kernel>>, hwirq: HwIrq, priority: Priority) -> Outcome {
        match self {
            Self::V3(gic) => {
                let Ok(lpi) = Lpi::try_from(hwirq.get()) else {
                    gic.distributor().interrupt(hwirq.into())?.set_priority(priority);
                    return Ok(());
                };
                let its = its.ok_or(Verdict::Skipped("no ITS".into()))?;
                its.lpis().set_priority(lpi, priority)?;
                its.invalidate(lpi)?;
            }
            Self::V2(gic) => gic.interrupt(hwirq.into())?.set_priority(priority),
        }
        Ok(())
    }

    fn running_priority(&self) -> Priority {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers()).running_priority(),
            Self::V2(gic) => gic.cpu_interface().running_priority(),
        }
    }

    fn highest_pending(&self) -> Option<IntId> {
        match self {
            Self::V3(gic) => gic.cpu_interface(registers()).highest_pending(),
            Self::V2(gic) => gic.cpu_interface().highest_pending(),
        }
    }

    fn mask_below(&self, threshold: Priority) -> Unmasked {
        match self {
            Self::V3(gic) => {
                let interface = gic.cpu_interface_with::<_, CombinedEoi>(registers());
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

    fn restore_mask(&self, before: Unmasked) {
        match (self, before) {
            (Self::V3(gic), Unmasked::V3(saved)) => {
                gic.cpu_interface(registers()).restore_mask(saved);
            }
            (Self::V2(gic), Unmasked::V2(mask)) => gic.cpu_interface().set_mask(mask),
            _ => unreachable!("the mask was saved by the same controller"),
        }
    }
}
