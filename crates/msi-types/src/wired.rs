//! The interface of the root controller's wired interrupts to the layers on them.

use crate::{Cpu, HwIrq, MsiError, Pending, Trigger};
use core::num::NonZeroU16;

/// Wired interrupts of the root controller, by INTID: the seam below MBI, GICv2m, Hyper-V's SPIs
/// and wired devices. The trait is object safe; the controller locks internally.
///
/// Each operation states its [context](crate#contexts).
pub trait WiredParent: Send + Sync {
    /// Claims `count` interrupts from `first` on for one owner.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`] with the first interrupt that is not implemented,
    /// [`MsiError::InUse`] with the first one that is already claimed. Nothing is claimed then.
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError>;
    /// Releases interrupts, which are then disabled and not pending.
    ///
    /// Context: task; may sleep.
    fn release(&self, first: HwIrq, count: NonZeroU16);
    /// Sets how the interrupt is signalled. The interrupt must be masked.
    ///
    /// Context: task; may sleep.
    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError>;
    /// Routes the interrupt to a CPU.
    ///
    /// Context: task; may sleep.
    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError>;
    /// Disables forwarding, and waits until this has taken effect.
    ///
    /// Context: any.
    fn mask(&self, hwirq: HwIrq);
    /// Enables forwarding.
    ///
    /// Context: any.
    fn unmask(&self, hwirq: HwIrq);
    /// Sets or clears the pending state.
    ///
    /// Context: any.
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);
    /// Returns true if the interrupt is pending (at the distributor or a redistributor).
    ///
    /// Context: any.
    fn is_pending(&self, hwirq: HwIrq) -> bool;
}
