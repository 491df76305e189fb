//! The atomics that the lock-free part stands on. The model check compiles the same sources against a scheduler's
//! atomics in place of these.

use super::safeguard::Safeguard;

pub(super) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Does the model check leave this step out?
#[inline]
pub(super) const fn is_left_out(_: Safeguard) -> bool {
    false
}
