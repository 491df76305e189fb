//! A word of a hierarchical bitmap: each bit says that a child may not be empty.
//!
//! False positives are allowed. No child that is not empty lacks its bit. A writer fills the child
//! and sets the bit afterwards. A reader that clears the bit looks at the child again afterwards.
//! All accesses are sequentially consistent, so one of the two sees the other.

use crate::sync::{AtomicU64, Ordering::SeqCst};

/// The bits of up to 64 children.
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

    /// Sets the bit of a child that was filled. Written only where it is clear: writers of one
    /// vCPU share the line.
    #[inline]
    pub(crate) fn set(&self, bit: u64) {
        if self.bits() & bit == 0 {
            self.0.fetch_or(bit, SeqCst);
        }
    }

    /// Clears the bit of a child found empty. If it is not empty any more, the bit is set again:
    /// the writer that filled it may have found the bit still set.
    pub(crate) fn clear(&self, bit: u64, is_empty: impl FnOnce() -> bool) {
        self.0.fetch_and(!bit, SeqCst);
        if !is_empty() {
            self.set(bit);
        }
    }
}
