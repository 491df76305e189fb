//! The atomics under what look-ups and changes share. The model check compiles the same sources against a scheduler's
//! atomics, which try every interleaving; since all accesses are sequentially consistent, these are all executions.

use crate::safeguard::Safeguard;

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Waits a little for another thread.
#[inline]
pub(crate) fn relax() {
    core::hint::spin_loop();
}

/// Does the model check leave this step out?
#[inline]
pub(crate) const fn is_left_out(_: Safeguard) -> bool {
    false
}
