//! The atomics under what look-ups and changes share. Every access is sequentially consistent: no
//! other ordering is imported here, and the lock-free files take theirs from here. The model check
//! compiles the same sources against a scheduler's atomics, which try every interleaving; these
//! are then all executions.

use crate::safeguard::Safeguard;

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Does the model check leave this step out?
#[inline]
pub(crate) const fn is_left_out(_: Safeguard) -> bool {
    false
}
