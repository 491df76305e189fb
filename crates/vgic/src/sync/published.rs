//! Values that threads publish for diagnostics alone. No decision of the model depends on them, so
//! accesses are not ordered and cost as little as those of plain memory.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A value that one thread at a time publishes, and that any thread may read.
#[derive(Debug, Default)]
pub(crate) struct Published(AtomicU64);

impl Published {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds 1, also if several threads do so. Meant for cold paths.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
