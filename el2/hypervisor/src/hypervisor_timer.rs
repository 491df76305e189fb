//! The hypervisor's timer on each CPU, `CNTHP_*_EL2` (DDI 0487, D11.2).

use core::arch::asm;

/// Deadline of a disabled timer.
pub(crate) const NEVER: u64 = u64::MAX;

/// Makes the timer fire when the counter reaches `deadline`.
pub(crate) fn set(deadline: u64) {
    let is_enabled = u64::from(deadline != NEVER);
    // SAFETY: only the hypervisor uses this timer, and its interrupt has a handler.
    unsafe {
        asm!(
            "msr cnthp_cval_el2, {deadline}",
            "msr cnthp_ctl_el2, {is_enabled}",
            "isb",
            deadline = in(reg) deadline,
            is_enabled = in(reg) is_enabled,
            options(nostack, preserves_flags),
        );
    }
}
