//! The atomics under what look-ups and changes share. The model check compiles the same sources
//! against a scheduler's atomics, which try interleavings and reorder nothing. As every access is
//! sequentially consistent, and there is no data race, these are all executions, on weakly ordered
//! CPUs, too (the C11 memory model's guarantee). A house lint refuses other orderings in this
//! crate.

use crate::safeguard::Safeguard;

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Does the model check leave this step out?
#[inline]
pub(crate) const fn is_left_out(_: Safeguard) -> bool {
    false
}
