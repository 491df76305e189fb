//! A word of a hierarchical bitmap, in which each bit summarizes a child.
//!
//! Invariant: the bit of a nonempty child is set, or its writer is about to set it; a set bit may
//! be a false positive. A writer sets the bit after it has filled the child. A reader that clears
//! the bit must check the child again afterwards. Because all accesses are sequentially consistent,
//! at least one of the two sees the other.

use crate::sync::{AtomicU64, Ordering::SeqCst};

/// Bits of up to 64 children.
#[derive(Debug)]
pub(crate) struct Summary(AtomicU64);

impl Summary {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn bits(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Sets the bit of a child that has been filled. Writes only if the bit is clear, because all
    /// writers of one vCPU share the cache line.
    #[inline]
    pub(crate) fn set(&self, bit: u64) {
        if self.bits() & bit == 0 {
            self.0.fetch_or(bit, SeqCst);
        }
    }

    /// Clears the bit of a child found empty, and sets it again if the child has been filled in the
    /// meantime: the writer may have found the bit still set.
    pub(crate) fn clear(&self, bit: u64, is_empty: impl FnOnce() -> bool) {
        self.0.fetch_and(!bit, SeqCst);
        if !is_empty() {
            self.set(bit);
        }
    }
}
