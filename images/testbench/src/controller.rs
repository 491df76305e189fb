//! The root controller (GICv2 or GICv3), with additional operations for tests.

use crate::report::{Outcome, Verdict};
use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use gic_arch::{IntId, Lpi, Priority, gits};
use gic_bringup::RootGic;
use gic_driver::cpu_interface::{CombinedEoi, SavedMask};
use gic_driver::{Gic, Its, PhysicalRegion, Platform, RawMmio};
use image_rt::platform::Kernel;
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

/// Returns the GICv3, or a verdict that skips the test if the machine has none.
pub(crate) fn gicv3(gic: &Controller) -> Result<&Arc<Gic<Kernel>>, Verdict> {
    gic.v3().ok_or(Verdict::Skipped("no GICv3".into()))
}

/// Returns the control frame of an ITS.
pub(crate) fn its_frame(its: &Its<Kernel>) -> Result<RawMmio, Verdict> {
    let region = PhysicalRegion { base: its.base(), bytes: gits::SIZE };
    Kernel.map(region).ok_or(Verdict::Failed("the ITS is not mapped".into()))
}

/// Changes the priority of a message's interrupt.
pub(crate) fn set_priority(
    gic: &Controller,
    its: Option<&Its<Kernel>>,
    hwirq: HwIrq,
    priority: Priority,
) -> Outcome {
    match gic {
        Controller::V3(gic) => {
            let Ok(lpi) = Lpi::try_from(hwirq.get()) else {
                gic.distributor().interrupt(hwirq.into())?.set_priority(priority);
                return Ok(());
            };
            let its = its.ok_or(Verdict::Skipped("no ITS".into()))?;
            its.lpis().set_priority(lpi, priority)?;
            its.invalidate(lpi)?;
        }
        Controller::V2(gic) => gic.interrupt(hwirq.into())?.set_priority(priority),
    }
    Ok(())
}

/// Returns the running priority of this CPU.
pub(crate) fn running_priority(gic: &Controller) -> Priority {
    match gic {
        Controller::V3(gic) => gic.cpu_interface(registers()).running_priority(),
        Controller::V2(gic) => gic.cpu_interface().running_priority(),
    }
}

/// Returns the highest-priority pending interrupt.
pub(crate) fn highest_pending(gic: &Controller) -> Option<IntId> {
    match gic {
        Controller::V3(gic) => gic.cpu_interface(registers()).highest_pending(),
        Controller::V2(gic) => gic.cpu_interface().highest_pending(),
    }
}

/// Masks interrupts on this CPU that are not more urgent than `threshold`.
pub(crate) fn mask_below(gic: &Controller, threshold: Priority) -> Unmasked {
    match gic {
        Controller::V3(gic) => {
            let interface = gic.cpu_interface_with::<_, CombinedEoi>(registers());
            let scale = interface.priority_scale(gic.distributor().view());
            Unmasked::V3(interface.mask_below(scale.mask_for(threshold)))
        }
        Controller::V2(gic) => {
            let interface = gic.cpu_interface();
            let before = interface.mask();
            interface.set_mask(threshold);
            Unmasked::V2(before)
        }
    }
}

/// Undoes [`mask_below`].
pub(crate) fn restore_mask(gic: &Controller, before: Unmasked) {
    match (gic, before) {
        (Controller::V3(gic), Unmasked::V3(saved)) => {
            gic.cpu_interface(registers()).restore_mask(saved);
        }
        (Controller::V2(gic), Unmasked::V2(mask)) => gic.cpu_interface().set_mask(mask),
        _ => unreachable!("the mask was saved by the same controller"),
    }
}
