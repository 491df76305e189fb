//! The interface between the root controller's wired interrupts and the drivers that use them.

use crate::explain::Explanation;
use crate::{Cpu, HwIrq, MsiError, Pending, Trigger};
use core::num::NonZeroU16;

/// Wired interrupts of the root controller, by INTID. MBI, GICv2m, Hyper-V's SPIs and drivers of
/// wired devices build on this interface. The trait is object safe; implementations must lock
/// internally.
///
/// Each operation states its [context](crate#contexts).
#[doc(alias = "irq_domain")]
pub trait WiredParent: Send + Sync {
    /// Claims `count` consecutive interrupts, the first of which is `first`, for one owner. Claims
    /// all of them or none.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`] with the first interrupt that is not implemented, or
    /// [`MsiError::InUse`] with the first one that is already claimed.
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError>;
    /// Releases interrupts. After the call, the interrupts are disabled and not pending.
    ///
    /// Context: task; may sleep.
    fn release(&self, first: HwIrq, count: NonZeroU16);
    /// Sets the trigger mode of the interrupt, which must be masked.
    ///
    /// Context: task; may sleep.
    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError>;
    /// Routes the interrupt to a CPU.
    ///
    /// Context: task; may sleep.
    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError>;
    /// Disables forwarding of the interrupt, and waits until the hardware has done so.
    ///
    /// Context: any.
    fn mask(&self, hwirq: HwIrq);
    /// Enables forwarding of the interrupt.
    ///
    /// Context: any.
    fn unmask(&self, hwirq: HwIrq);
    /// Sets or clears the pending state of the interrupt.
    ///
    /// Context: any.
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);
    /// Returns `true` if the interrupt is pending (at the distributor or a redistributor).
    ///
    /// Context: any.
    fn is_pending(&self, hwirq: HwIrq) -> bool;
    /// Returns `true` if each CPU has its own interrupt with this number (on a GIC: an implemented
    /// SGI or PPI). The core refuses requests for other private interrupts. The provided method
    /// returns `true`.
    ///
    /// Context: task; may sleep.
    fn has_private(&self, hwirq: HwIrq) -> bool {
        let _ = hwirq;
        true
    }
    /// Explains how far the interrupt gets in this controller, by reading the hardware's registers.
    /// A private interrupt is explained for the calling CPU. The provided method returns an empty
    /// explanation.
    ///
    /// Context: task; may sleep.
    fn explain(&self, hwirq: HwIrq) -> Explanation {
        let _ = hwirq;
        Explanation::new()
    }
}
