//! The hypervisor's timer on each CPU, `CNTHP_*_EL2` (DDI 0487, D11.2).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use el2_cpu::NEVER;
use image_rt::cpu;

/// Counter value at which the guests' devices look for work.
static POLL: AtomicU64 = AtomicU64::new(NEVER);

/// Makes the first CPU call [`Devices::poll`](crate::Devices::poll) once, after this number of
/// counter ticks. Must be called on the first CPU.
pub fn poll_after(ticks: u64) {
    POLL.store(cpu::ticks().saturating_add(ticks), SeqCst);
}

/// Returns the counter value at the next poll, for the CPU that polls.
pub(crate) fn poll() -> u64 {
    if cpu::current() == 0 { POLL.load(SeqCst) } else { NEVER }
}

/// Returns `true` if this CPU must poll now, which it must then do.
pub(crate) fn take_poll() -> bool {
    let is_due = poll() <= cpu::ticks();
    if is_due {
        POLL.store(NEVER, SeqCst);
    }
    is_due
}

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
