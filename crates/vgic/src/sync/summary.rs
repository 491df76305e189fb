//! A word in a hierarchical bitmap; each bit summarizes one child word.
//!
//! Invariant: if a child is nonempty, its bit is set or its writer is about to set it. A set bit
//! may be a false positive. A writer sets the bit after it has filled the child. A reader that
//! clears the bit must check the child again afterwards. Because all accesses are sequentially
//! consistent, at least one of the two observes the other's write.
//!
//! A reader that sets the bit again has filled this word, so it must also set the bits above it: a
//! second reader may have found the word empty in the meantime, and cleared them.

use crate::sync::{AtomicU64, Ordering::SeqCst};

/// Summary bits for up to 64 children.
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

    /// Returns `true` if the bit for a child is set.
    #[inline]
    pub(crate) fn has(&self, bit: u64) -> bool {
        self.bits() & bit != 0
    }

    /// Sets the bit for a child that has been filled. Skips the write if the bit is already set,
    /// because all writers for one vCPU share the cache line.
    #[inline]
    pub(crate) fn set(&self, bit: u64) {
        if !self.has(bit) {
            self.0.fetch_or(bit, SeqCst);
        }
    }

    /// Clears the bit for a child. Callers must check the child afterwards, and must
    /// [`set`](Self::set) the bit again if the child is filled.
    #[inline]
    pub(crate) fn remove(&self, bit: u64) {
        self.0.fetch_and(!bit, SeqCst);
    }

    /// Clears the bit for a child that was found empty. Sets the bit again if the child has been
    /// filled in the meantime, because its writer may have found the bit still set. Returns `true`
    /// in this case.
    pub(crate) fn clear(&self, bit: u64, is_empty: impl FnOnce() -> bool) -> bool {
        self.remove(bit);
        let is_filled = !is_empty();
        if is_filled {
            self.set(bit);
        }
        is_filled
    }
}
