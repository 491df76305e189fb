//! Locks and parked threads of the simulated hardware. The drivers have their own locks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// Locks `mutex` and ignores poisoning: the panic has already been reported, and the protected data
/// is still the machine's state.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place where one thread waits for an event. Unlike a condition variable, it can be signaled
/// without a system call while no thread waits.
#[derive(Debug, Default)]
pub struct ParkedThread(Mutex<Option<Thread>>);

impl ParkedThread {
    /// Parks the calling thread with `park` until [`unpark`](Self::unpark) is called, unless
    /// `has_happened` returns `true`. `park` may return early, so callers must check for the event
    /// again. Must be called by one thread at a time.
    pub fn park_unless(&self, has_happened: impl FnOnce() -> bool, park: impl FnOnce()) {
        *lock(&self.0) = Some(thread::current());
        if !has_happened() {
            park();
        }
        *lock(&self.0) = None;
    }

    /// Wakes the waiting thread, if any. Must be called after the event is visible to
    /// `has_happened`.
    pub fn unpark(&self) {
        // Release the lock first, because the woken thread takes it immediately.
        let parked = lock(&self.0).take();
        if let Some(thread) = parked {
            thread.unpark();
        }
    }
}
