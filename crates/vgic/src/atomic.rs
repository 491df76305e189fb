//! The atomics under what threads share. Model checks compile the same sources against a scheduler's atomics in place of
//! these; since all accesses are sequentially consistent, what the scheduler explores is all that can happen.

use crate::safeguard::Safeguard;

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Does the model check leave this step out?
#[inline]
pub(crate) const fn is_left_out(_: Safeguard) -> bool {
    false
}
