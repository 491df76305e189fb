//! The locks of the simulated hardware, as opposed to the drivers' locks, and its waiting threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// Locks `mutex` and ignores poisoning: the panic has already been reported, and the protected data
/// is still the machine's state.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that waits for an event. Unlike a condition variable, it takes no system call to signal
/// an event that no thread waits for.
#[derive(Debug, Default)]
pub struct ParkedThread(Mutex<Option<Thread>>);

impl ParkedThread {
    /// Calls `park`, which must park the calling thread until [`unpark`](Self::unpark) is called,
    /// unless the event that `has_happened` looks for has happened. `park` may return early. Must
    /// be called by one thread at a time.
    pub fn park_unless(&self, has_happened: impl FnOnce() -> bool, park: impl FnOnce()) {
        *lock(&self.0) = Some(thread::current());
        if !has_happened() {
            park();
        }
        *lock(&self.0) = None;
    }

    /// Wakes the thread, after an event.
    pub fn unpark(&self) {
        // The thread takes the lock as soon as it wakes, so it must be free by then.
        let parked = lock(&self.0).take();
        if let Some(thread) = parked {
            thread.unpark();
        }
    }
}
