//! Accesses to words that CPUs share, as in the model: sequentially consistent.

use std::sync::atomic::{AtomicU64, Ordering};

/// Returns `count` zero words.
pub(super) fn zeros(count: u32) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Performs one load.
#[inline]
pub(super) fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::SeqCst)
}

/// Performs one read-modify-write. Stores `new` if the word equals `seen`; otherwise returns
/// `false`.
#[inline]
pub(super) fn exchange(word: &AtomicU64, seen: u64, new: u64) -> bool {
    word.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Clears bits with a single read-modify-write.
#[inline]
pub(super) fn clear(word: &AtomicU64, bits: u64) {
    word.fetch_and(!bits, Ordering::SeqCst);
}
