//! Values that threads publish for diagnostics alone. The model's decisions do not depend on them,
//! so relaxed loads and stores suffice, which cost no more than plain ones.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A value that any thread may read. Callers must not call [`set`](Self::set) concurrently with
/// another write.
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

    /// Sets the value and returns the previous one. May be called concurrently by several threads.
    pub(crate) fn replace(&self, value: u64) -> u64 {
        self.0.swap(value, Relaxed)
    }

    /// Adds 1. May be called concurrently by several threads. Uses an atomic read-modify-write, so
    /// it is meant for cold paths.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
