//! Interrupt priorities that a kernel chooses.

use gic_arch::Priority;

/// Priorities, in the security view's scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Priorities {
    pub(crate) wired: Priority,
    pub(crate) lpi: Priority,
    pub(crate) mask: Priority,
}

impl Priorities {
    msi_types::setters! {
        /// Sets the priority of SGIs, PPIs and SPIs.
        with_wired: wired: Priority,
        /// Sets the priority of LPIs.
        with_lpi: lpi: Priority,
        /// Sets the priority mask. Only interrupts with a higher priority are signaled.
        with_mask: mask: Priority,
    }
}

impl Default for Priorities {
    /// Uses the same mid-range priority for all interrupts, leaving room for higher ones.
    /// [`mask_below`](crate::CpuInterface::mask_below) lists the restrictions on handlers for
    /// higher-priority interrupts. The mask is 0xf0, the lowest priority when only four priority
    /// bits are implemented, so all higher priorities are signaled.
    fn default() -> Self {
        Self { wired: Priority::new(0xa0), lpi: Priority::new(0xa0), mask: Priority::new(0xf0) }
    }
}
